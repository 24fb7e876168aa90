"""The words of the flow's command line. Refuses to know what they start."""

from __future__ import annotations

import argparse


def parse(words: list[str], description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.orchestration.flow", description=description
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the flow once, with a server of its own if need be")
    run.add_argument("--target", action="append", help="a stage; may be repeated")
    run.add_argument("--force", action="store_true", help="run fresh stages too")
    run.add_argument("--max-workers", type=int, help="stages side by side; default: one per core")
    run.add_argument("--pull", action="store_true", help="bring what is missing from the remote")
    run.add_argument("--push", action="store_true", help="put what was made into the remote")
    ui = commands.add_parser("ui", help="a server with the UI and the flows in it, until Ctrl-C")
    ui.add_argument("--port", type=int, default=4200)
    commands.add_parser("serve", help="offer the flows to the server at PREFECT_API_URL")
    return parser.parse_args(words)
