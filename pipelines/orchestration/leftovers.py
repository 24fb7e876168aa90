"""Takes away what removed tasks, methods and students have left in folders that stages depend on.

DVC hashes such a folder as a whole. With a row of former parameters in it, it would be another one
than in a fresh clone, and all that depends on it would run again there. What is taken away is in
DVC's cache still, and comes back from it when the row does. Nothing goes while DVC works there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines.orchestration.repair import dvc_processes
from pipelines.parameters import PARAMETERS
from pipelines.yaml_text import read_yaml
from skd.errors import UserError

# Folder with a file or a folder for each of a list in `experiment`
ROWS = {
    "data": "tasks",
    "metrics/prepare": "tasks",
    "models/students": "methods",
    "logs/distill": "methods",
    "metrics/distill": "methods",
    "metrics/scaling": "students",
}


def tidy(root: Path) -> list[str]:
    """Return a line about each thing that was removed; what params.yaml gets wrong is let be."""
    if dvc_processes(root):
        return []
    try:
        experiment = read_yaml(root / PARAMETERS)["experiment"]
    except (UserError, OSError, KeyError, TypeError):
        return []
    said = []
    for folder, rows in ROWS.items():
        named = experiment.get(rows) if isinstance(experiment, dict) else None
        if not isinstance(named, list):
            continue
        for path in sorted((root / folder).glob("[!.]*")):
            if path.stem not in named:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                said.append(f"removed {folder}/{path.name}: experiment.{rows} does not name it")
    return said
