"""The stages in this process, one after the other, as DVC would order them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import plan
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
