"""What a comparison reads of a revision."""

from __future__ import annotations

import json

import pytest

from pipelines.compare import _read_outputs
from pipelines.settings.experiment import Experiment
from skd.errors import UserError

OUTPUTS = ("data/a", "data/gone", "models/base", "logs/distill/sft", "logs/distill/gone", "records")


def test_the_outputs_of_removed_rows_are_not_asked_for(tmp_path) -> None:
    """dvc.lock keeps their stages; `dvc checkout` refuses what is no output of dvc.yaml."""
    stages = {out: {"cmd": "x", "outs": [{"path": out}]} for out in OUTPUTS}
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": stages}))
    asked = Experiment(["a"], ["sft"], [1], sweeps=[], test_sets=[], fairness=[], students=[])
    assert _read_outputs(tmp_path, asked) == ["data/a", "logs/distill/sft", "records"]
    (tmp_path / "dvc.lock").unlink()
    with pytest.raises(UserError, match=r"without dvc\.lock"):
        _read_outputs(tmp_path, asked)
