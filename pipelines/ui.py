"""`python -m pipelines.ui`: the Prefect UI with the flow in it, until Ctrl-C.

The server itself is `pipelines.server`; what is offered is `pipelines.flow`, imported only
once the environment names the server.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from pipelines import server
from skd.errors import UserError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=4200)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with server.running(options.port) as url:
            os.environ.update({"PREFECT_API_URL": f"{url}/api", **server.PRIVATE})
            print(f"Prefect UI: {url}  (Ctrl-C ends it)", flush=True)
            from pipelines import flow  # reads the environment

            flow.serve()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ended", flush=True)
    return 0


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
