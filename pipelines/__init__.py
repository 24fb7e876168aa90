"""One thin module per stage of the experiment, and the Prefect flow over their graph."""

import os

# OpenMP's threads spin while they wait, by default. With another process on the same cores that
# made training 30 times slower here; waiting passively costs a tenth on a quiet machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
