"""The tiny experiment that is struck: made once, kept as it stood before each of its stages.

A fault begins from one of these states, at one path, so that nothing but the fault differs. Refuses
to know faults.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines import sandbox
from pipelines.orchestration.graph import plan
from pipelines.orchestration.repro import python_first

ROOT = Path(__file__).resolve().parent.parent
# Where faults happen, and the states that they begin from
FOLDER = Path(".scratch/chaos")
_SECONDS = "seconds.json"
_END = "end"

# What the profile `smoke` is shrunk to: one task, two methods, one seed, a second of training each
TINY: dict[str, dict[str, Any]] = {
    "experiment": {"methods": ["sft", "skd"], "sweeps": [], "fairness": [], "students": []},
    "data.summarization": {"train_size": 300, "validation_size": 20, "test_size": 20},
    "models.teacher": {"steps": 10},
    "models.student": {"steps": 10},
    "sft.teacher": {
        "steps": 24,
        "validate_every": 12,
        "validation_examples": 10,
        "checkpoint_every": 4,
    },
    "sft.student": {"steps": 8, "validation_examples": 10, "checkpoint_every": 4},
    "distill.optimisation": {
        "steps": 24,
        "validate_every": 8,
        "validation_examples": 10,
        "checkpoint_every": 4,
    },
    "budget.summarization": {"student_examples": 40},
    "report": {"resamples": 200},
    "runtime": {"progress": False, "workers": 2},
}


@dataclass(frozen=True)
class Project:
    """The experiment at `work`, and the states that it can be put back to."""

    work: Path
    states: Path

    @staticmethod
    def at(folder: Path) -> Project:
        return Project(folder / "work", folder / "states")

    @property
    def stages(self) -> list[str]:
        """Their names in order."""
        return list(self.seconds)

    @property
    def seconds(self) -> dict[str, float]:
        """Stage -> what its command took when nothing struck it."""
        found: dict[str, float] = json.loads((self.states / _SECONDS).read_text(encoding="utf-8"))
        return found

    def before(self, stage: str) -> Path:
        """The state in which everything up to this stage is done, and nothing of it."""
        return self.states / stage

    @property
    def end(self) -> Path:
        """The state in which everything is done."""
        return self.states / _END

    def restore(self, state: Path) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(state, self.work, symlinks=True)

    def make(self, last: str | None = None) -> None:
        """Run the experiment stage by stage, unless that was done before.

        last: stage to end with; None: all are run.
        """
        if (self.states / _SECONDS).exists():
            return
        shutil.rmtree(self.states, ignore_errors=True)
        sandbox.copy_project(self.work, "smoke")
        _shrink(self.work / "params.yaml")
        (self.work / ".venv").symlink_to(sys.prefix)
        seconds = {}
        # DVC names stages from where the process stands
        for stage in [stage.name.rpartition(":")[2] for stage in plan(self.work)]:
            shutil.copytree(self.work, self.before(stage), symlinks=True)
            began = time.monotonic()
            words = ["-m", "dvc", "repro", "--single-item", stage]
            subprocess.run([sys.executable, *words], cwd=self.work, env=environment(), check=True)
            seconds[stage] = round(time.monotonic() - began, 2)
            if stage == last:
                break
        shutil.copytree(self.work, self.end, symlinks=True)
        text = json.dumps(seconds, indent=2) + "\n"
        (self.states / _SECONDS).write_text(text, encoding="utf-8")


def environment() -> dict[str, str]:
    """Whatever commands keep beside the project stands in it, so that no fault meets another's."""
    own = {"DVC_SITE_CACHE_DIR": ".dvc/tmp/site", "PREFECT_HOME": ".prefect"}
    one_thread = {"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **python_first(), **own, **one_thread}


def _shrink(path: Path) -> None:
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, values in TINY.items():
        section = params
        for word in name.split("."):
            section = section.setdefault(word, {})
        section.update(values)
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
