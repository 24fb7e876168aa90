"""Each step of a rollout for several steps is planned with the progress that it is trained at."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from skd.engine.pair import Pair
from skd.engine.rollout import uniform_noise
from skd.engine.seeding import generator
from skd.engine.sequences import TokenBatch, TokenExample
from skd.engine.settings import Acceptance, Sampling
from skd.results.runs import Validation
from skd.training.loop import train
from skd.training.methods import METHODS, ResponseSource
from skd.training.run import TrainingRun
from skd.training.settings import Distill, MethodSettings, Optimisation
from skd.training.step import prepare_steps
from tests.reference import interleaved
from tests.tiny import SIZE, VOCABULARY, build, prompts

STEPS, LENGTH, SEED = 10, 8, 20
PROMPTS = prompts(9)
TRUTH = [TokenExample(p, (*r, 1)) for p, r in zip(PROMPTS, prompts(9, seed=5), strict=True)]
TAUGHT = [TokenExample(p, (*r, 1)) for p, r in zip(PROMPTS, prompts(9, seed=6), strict=True)]
KNOWN = {ResponseSource.GROUND_TRUTH: TRUTH, ResponseSource.TEACHER: TAUGHT}
SAMPLING = Sampling(0.8)


def make_run(
    folder: Path, method: str, rollout_steps: int, acceptance: Acceptance | None = None
) -> TrainingRun:
    optimisation = Optimisation(steps=STEPS, batch_size=3, learning_rate=0.01)
    return TrainingRun(
        settings=MethodSettings(method, acceptance=acceptance or Acceptance("top_k", 3)),
        distill=Distill(optimisation, SAMPLING, SAMPLING, rollout_steps=rollout_steps),
        pair=Pair(build(seed=1), build(seed=2).requires_grad_(False), VOCABULARY),
        known=KNOWN,
        max_new_tokens=LENGTH,
        seed=SEED,
        validate=lambda model: Validation(metric=1.0),
        scratch=folder,
    )


def batches(run: TrainingRun) -> list[TokenBatch]:
    """What each step of a run is trained on; the student stays as it is."""
    every = run.distill.rollout_steps
    return [part.batch for start in range(0, STEPS, every) for part in prepare_steps(run, start)]


def texts(batch: TokenBatch) -> list[tuple[int, ...]]:
    rows = zip(batch.tokens, batch.lengths, strict=True)
    return [tuple(row[:stop].tolist()) for row, stop in rows]


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.start])
@pytest.mark.parametrize("rollout_steps", [1, 3, 4, 16])
def test_a_method_changes_its_source_at_the_step_that_it_says(name, rollout_steps, tmp_path):
    method = METHODS[name]
    known = {e.prompt + e.response for e in KNOWN[method.otherwise]}
    made = batches(make_run(tmp_path, name, rollout_steps))
    first = [set(texts(batch)) <= known for batch in made]
    assert first == [step / STEPS < method.start for step in range(STEPS)]


@pytest.mark.parametrize("rollout_steps", [1, 4])
def test_a_schedule_reads_the_progress_of_each_step(rollout_steps, tmp_path) -> None:
    """Row by row the token-level reference with the value that the row's step has."""
    rule = Acceptance("top_k", 1, final_value=SIZE)
    run = make_run(tmp_path, "skd", rollout_steps, rule)
    assert run.pair.teacher is not None
    for start in range(0, STEPS, rollout_steps):
        steps = list(range(start, min(start + rollout_steps, STEPS)))
        key = (SEED, "rollout", start, "noise")
        noise = uniform_noise(3 * len(steps), LENGTH, generator(*key))
        made = [
            row
            for part in prepare_steps(run, start)
            for row in zip(texts(part.batch), part.batch.prompt_lengths.tolist(), strict=True)
        ]
        for place, (text, prompt) in enumerate(made):
            share = steps[place // 3] / STEPS
            own = Acceptance("top_k", 1 + share * (SIZE - 1))
            wanted = interleaved(
                run.pair.student, run.pair.teacher, text[:prompt], VOCABULARY, SAMPLING, SAMPLING,
                dataclasses.replace(own, value=round(own.value)), LENGTH, noise[:, place],
            )  # fmt: skip
            assert list(text[prompt:]) == wanted.response


def test_a_schedule_between_equal_values_is_a_constant(tmp_path) -> None:
    constant = batches(make_run(tmp_path, "skd", 4, Acceptance("min_prob", 0.1)))
    scheduled = batches(make_run(tmp_path, "skd", 4, Acceptance("min_prob", 0.1, 0.1)))
    for one, other in zip(constant, scheduled, strict=True):
        assert torch.equal(one.tokens, other.tokens)


def test_a_rollout_across_the_change_asks_the_teacher_about_its_second_part_alone(tmp_path):
    """`seq_kd_then_skd` fine-tunes first: no teacher, and no divergence in the log."""
    run = make_run(tmp_path, "seq_kd_then_skd", rollout_steps=STEPS)
    responses = next(prepare_steps(run, 0)).responses
    assert responses is not None
    (rollout,) = responses.rollouts
    assert responses.teacher_passes == rollout.cost.teacher_passes
    assert responses.teacher_tokens == rollout.cost.teacher_tokens
    train(run)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["kl"] is not None for row in rows] == [step >= STEPS / 2 for step in range(STEPS)]
