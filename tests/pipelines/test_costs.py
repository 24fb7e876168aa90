"""What a finished run says that it took."""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from pipelines.runs.training import _result
from skd.models.encoding import Encoded
from skd.results.runs import Preparation, TrainedRun, Validation
from skd.settings import plain
from skd.training.counts import RunCounts


def test_tokens_of_both_models_are_counted_and_those_made_once_stand_apart() -> None:
    counts = RunCounts(
        student_sampled_tokens=30,
        replaced_tokens=5,
        phases={"teacher": 2.0},
        validation=Validation(1),
    )
    run = _result(counts, Preparation(1.5, 7), Encoded([], [], 0, 0), None)
    assert (run.teacher_sampled_tokens, run.generated_tokens) == (12, 42)
    assert run.preparation == Preparation(seconds=1.5, teacher_sampled_tokens=7)
    assert run.cost.training_seconds == 2.0
    again = TypeAdapter(TrainedRun).validate_json(json.dumps(plain(run)))
    assert again == run
