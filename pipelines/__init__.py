"""One thin module per stage of the experiment, and the Prefect flow over their graph."""

import gc
import os
import time

# When this process began, by a clock that neither a moved date nor a suspended machine moves. The
# interpreter's own start lies before this line: the process measures that by its processor time.
BEGAN = time.monotonic() - time.process_time()

# OpenMP's threads spin while they wait, by default. With another process on the same cores that
# made training 30 times slower here; waiting passively costs a tenth on a quiet machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Importing three thousand modules, the collector looks a thousand times for what is not there: a
# fifth of the seconds that each stage begins with.
gc.set_threshold(200_000, 20, 100)
