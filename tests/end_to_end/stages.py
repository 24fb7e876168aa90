"""A tiny experiment, and its stages in this process, one after the other as DVC orders them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import plan
from pipelines.profile import compose
from pipelines.stages import (
    base,
    distill,
    evaluate,
    export,
    fairness,
    prepare,
    prepare_tests,
    probe,
    report,
    sft,
    sweep,
)
from tests.conftest import ROOT


def tiny_experiment(task: str, methods: list[str], **tuning: Any) -> dict[str, Any]:
    """The profile `smoke` with one task, one seed and four steps for each model.

    tuning: settings of every optimisation, beside those.
    """
    params: dict[str, Any] = yaml.safe_load(compose("smoke", ROOT / "profiles"))
    params["experiment"] |= {
        **{"tasks": [task], "methods": methods, "seeds": [20]},
        **{"sweeps": [], "fairness": [], "students": []},
    }
    steps = {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "validation_examples": 6, **tuning}
    params["sft"] = {"teacher": steps, "student": steps}
    params["distill"]["optimisation"] = {**steps, "validate_every": 2}
    params["methods"] = {name: {"method": name} for name in methods}
    params["sweeps"] = {}
    params["probe"] = {"methods": ["skd"], "examples": 4, "drafted": 1}
    params["runtime"] = {"workers": 1, "plan": False, "progress": False}
    return params


def run_stages(root: Path, params: dict[str, Any]) -> None:
    """All of an experiment in a folder, from its data to the exported student."""
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for task in params["experiment"]["tasks"]:
            prepare.main([task])
        prepare_tests.main([])
        plan.main(["--check"])
        base.main([])
        sft.main([])
        for method in params["experiment"]["methods"]:
            distill.main([method])
        evaluate.main([])
        for analysis in (probe, sweep, fairness):
            analysis.main([])
        report.main([])
        export.main([])
