"""What a flow run shows in Prefect's UI: stages, report, comparison, and progress of a stage.

Gives Prefect texts and numbers that other modules make. Refuses to know how stages run.
"""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from pipelines.orchestration import artifacts, pace
from pipelines.runs.progress import Standing, standing

REPORT_STAGE, REPORT = "report", Path("reports/report.md")
# Seconds between two looks at what a stage announces and logs
EVERY = 3.0


def publish(root: Path, rows: list[artifacts.Row]) -> None:
    """The table of stages, and the report where it is fresh."""
    create_table_artifact(artifacts.table(rows), key="stages", description="Stages of this run")
    fresh = {row.stage for row in rows if row.state in ("Completed", "Cached")}
    if REPORT_STAGE in fresh and (root / REPORT).is_file():
        text = artifacts.self_contained(root / REPORT)
        create_markdown_artifact(text, key="report", description="Report of the experiment")


def publish_comparison(rows: Sequence[dict[str, str]], description: str) -> None:
    create_table_artifact(list(rows), key="comparison", description=description)


@contextmanager
def progress_shown(root: Path, stage: str) -> Iterator[Shown]:
    """Show how far the stage's training is as long as the body lasts; nothing where none trains."""
    over = threading.Event()
    shown = Shown(root, stage)

    def look() -> None:
        while not over.wait(EVERY):
            shown.update()

    # The context tells Prefect which task run the artifact is of.
    watcher = threading.Thread(target=contextvars.copy_context().run, args=(look,), daemon=True)
    watcher.start()
    try:
        yield shown
    finally:
        over.set()
        watcher.join()


class Shown:
    """One stage's progress artifact: made at the first look that finds it training."""

    def __init__(self, root: Path, stage: str) -> None:
        self.root, self.stage = root, stage
        self.pace = pace.Pace()
        self.artifact: UUID | None = None
        self.last: Standing | None = None

    def update(self) -> None:
        """Look, and show what has moved."""
        now = standing(self.root, self.stage)
        if now is not None:
            self._show(now, self.pace.left(now))

    def finish(self) -> None:
        """The stage has ended well: whatever was seen last, all of it is trained."""
        if self.last is not None:
            runs = [replace(run, done=run.steps, finished=True) for run in self.last.runs]
            self._show(Standing(self.stage, runs), None)

    def _show(self, now: Standing, left: float | None) -> None:
        if now == self.last:  # the server is left alone
            return
        self.last = now
        words = f"{self.stage}: {pace.line(now, left)}"
        if self.artifact is None:
            made = create_progress_artifact(
                pace.percent(now), key=artifact_key(self.stage), description=words
            )
            assert isinstance(made, UUID)  # a coroutine where an event loop runs
            self.artifact = made
        else:
            update_progress_artifact(self.artifact, pace.percent(now), description=words)


def artifact_key(stage: str) -> str:
    """Prefect takes small letters, digits and dashes."""
    return "training-" + re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")
