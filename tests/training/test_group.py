"""Processes that train one run together (gloo, on the CPU): the same sequences, losses and weights.

In fp64 and with LayerNorm, which computes in it: what differs is the order of sums.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.runs.machine import Machine
from pipelines.runs.ranks import together
from skd.engine.pair import Pair
from skd.engine.sequences import TokenExample
from skd.engine.settings import Acceptance, Sampling
from skd.engine.shards import whole_state
from skd.errors import UserError
from skd.models.sharding import shard_
from skd.results.runs import Validation
from skd.training.decoding import generate_together, teacher_responses
from skd.training.group import ALONE, Group
from skd.training.loop import train
from skd.training.methods import METHODS, ResponseSource
from skd.training.run import TrainingRun
from skd.training.settings import Distill, MethodSettings, Optimisation
from skd.training.step import prepare_steps
from skd.training.validation import Validator
from tests.tiny import VOCABULARY, build, machine_in, prompts

EXAMPLES = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(10), prompts(10, seed=5), strict=True)]
TAUGHT = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(10), prompts(10, seed=6), strict=True)]
HELD_OUT = EXAMPLES[7:]
OPTIMISATION = Optimisation(
    steps=4,
    batch_size=4,
    learning_rate=0.01,
    micro_batch_size=2,
    validate_every=2,
    checkpoint_every=2,
)
ALLOWED = {"rtol": 1e-7, "atol": 1e-9}
# What a block's size depends on is which rows stand in it
COUNTED_BY_BLOCK = {"teacher_passes"}


class InterruptedRunError(Exception):
    pass


def score(generated) -> float:
    """Of the ids alone, and rising as responses grow."""
    return float(sum(sum(response) for response in generated.responses) % 97)


def make_run(folder: Path, method: str, group: Group = ALONE, **changes) -> TrainingRun:
    shard = changes.pop("shard", False)
    examples = changes.pop("examples", EXAMPLES)
    optimisation = dataclasses.replace(OPTIMISATION, **changes.pop("optimisation", {}))
    teacher = build("gpt2", seed=2).requires_grad_(False)
    student = build("gpt2", seed=1, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    if shard:
        shard_(student, torch.device("cpu"))
    fields = {
        "settings": MethodSettings(method, acceptance=Acceptance("top_k", 3)),
        "distill": Distill(optimisation, block_size=2, **changes.pop("distill", {})),
        "pair": Pair(student, teacher if METHODS[method].needs_teacher else None, VOCABULARY),
        "known": {ResponseSource.GROUND_TRUTH: examples, ResponseSource.TEACHER: TAUGHT},
        "max_new_tokens": 8,
        "seed": 20,
        "validate": Validator(HELD_OUT, score, VOCABULARY, 8, 2, teacher=teacher, group=group),
        "scratch": folder,
        "group": group,
    }
    return TrainingRun(**{**fields, **changes})


def processes(folder: Path, size: int) -> Machine:
    return machine_in(folder, processes=size)


# ---------------------------------------------------------------------- what they tell
@given(st.integers(0, 50), st.integers(1, 9))
def test_each_place_is_one_processs_and_shares_are_even(count, size) -> None:
    shares = [Group(rank, size).share(count) for rank in range(size)]
    assert [place for share in shares for place in share] == list(range(count))
    lengths = {len(share) for share in shares}
    assert max(lengths) - min(lengths) <= 1


def sums(machine: Machine, group: Group) -> list:
    share = group.share(5)
    rows = group.rows([[place] * place for place in share], 5)
    half = torch.full((3,), 1.0 + group.rank, dtype=torch.bfloat16)
    many = [torch.full((2, 2), float(group.rank), dtype=torch.float64), half, half.clone()]
    group.sum_(many)
    group.wait()
    return [rows, group.totals([1.0, group.rank]), [tensor.tolist() for tensor in many]]


def test_sums_and_rows_are_of_all_processes(tmp_path) -> None:
    rows, totals, summed = together(sums, processes(tmp_path, 3))
    assert rows == [[], [1], [2, 2], [3, 3, 3], [4, 4, 4, 4]]
    assert totals == [3.0, 3.0]
    assert summed == [[[3.0, 3.0], [3.0, 3.0]], [6.0] * 3, [6.0] * 3]


# ------------------------------------------------------------------------- sequences
def emitted(folder: Path, machine: Machine, group: Group) -> dict[str, list[list[int]]]:
    """By method, what all processes train on in steps that share a rollout, in order."""
    found = {}
    for method in ("sft", "seq_kd", "on_policy_kd", "skd", "imit_kd", "distillm2"):
        run = make_run(folder, method, group, distill={"rollout_steps": 2})
        rows_per_prompt = run.responder.rows_per_prompt
        found[method] = []
        for step in prepare_steps(run, 2):
            own = step.batch.responses()
            starts = range(0, len(own), rows_per_prompt)
            by_prompt = [list(chain(*own[at : at + rows_per_prompt])) for at in starts]
            found[method] += group.rows(by_prompt, run.optimisation.batch_size)
    noise = torch.rand(3, len(EXAMPLES), 8, generator=torch.Generator().manual_seed(4))
    asked = [example.prompt for example in EXAMPLES]
    model = build("gpt2", seed=1)
    made = generate_together(group, model, asked, VOCABULARY, 8, 3, Sampling(), noise.double())
    found["decoded"], found["stopped"] = made.responses, [[int(end)] for end in made.stopped]
    taught = teacher_responses(model, EXAMPLES, VOCABULARY, 8, 3, Sampling(), 20, group=group)
    found["the teacher's own"] = [list(example.response) for example in taught]
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_emitted_sequences_do_not_depend_on_the_number_of_processes(size, tmp_path) -> None:
    """Three processes have one, one and two rows of a batch of four."""
    alone = emitted(tmp_path, processes(tmp_path, 1), ALONE)
    assert together(partial(emitted, tmp_path), processes(tmp_path, size)) == alone
    assert all(len(set(map(tuple, rows))) > 1 for rows in alone.values())


# --------------------------------------------------------------------------- training
def trained(folder: Path, method: str, changes: dict, machine: Machine, group: Group) -> dict:
    run = make_run(folder, method, group, **changes)
    counts = train(run)
    full = whole_state(run.pair.student) or run.pair.student.state_dict()
    flat = torch.cat([full[name].flatten() for name in sorted(full)])
    # In bits: each process adds its share, and they agree if the sum is a multiple of one's
    own = [float(flat.double().sum()), float(flat.double().square().sum())]
    alike = [
        total == group.size * value for total, value in zip(group.totals(own), own, strict=True)
    ]
    values = counts.to_json()
    values.pop("phases")
    return {"weights": flat.tolist(), "counts": values, "alike": all(alike)}


def train_by(size: int, folder: Path, method: str, **changes) -> dict:
    return together(partial(trained, folder, method, changes), processes(folder, size))


def log(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def near(values: dict, others: dict) -> bool:
    unknown = {name for name, value in values.items() if value is None}
    if unknown != {name for name, value in others.items() if value is None}:
        return False
    numbers = {name: value for name, value in others.items() if name not in unknown}
    return {n: values[n] for n in numbers} == pytest.approx(numbers, rel=1e-7, abs=1e-9)


def assert_same(one: Path, own: dict, other: Path, others: dict) -> None:
    assert others["alike"]
    torch.testing.assert_close(
        torch.tensor(others["weights"]), torch.tensor(own["weights"]), **ALLOWED
    )
    assert len(log(one)) == len(log(other)) == OPTIMISATION.steps
    for row, same in zip(log(one), log(other), strict=True):
        assert near(row, same)
    counts, same_counts = own["counts"], others["counts"]
    assert near(counts["validation"], same_counts["validation"])
    for name in counts.keys() - COUNTED_BY_BLOCK - {"validation"}:
        assert counts[name] == same_counts[name], name


@pytest.mark.parametrize(
    ("method", "size", "shard"),
    [
        ("sft", 3, False),
        ("on_policy_kd", 2, False),
        ("skd", 2, False),
        ("imit_kd", 2, False),
        ("sft", 2, True),
        ("skd", 2, True),
    ],
)
def test_a_run_is_the_same_by_one_process_and_by_several(method, size, shard, tmp_path) -> None:
    own = train_by(1, tmp_path / "one", method)
    others = train_by(size, tmp_path / "many", method, shard=shard)
    assert_same(tmp_path / "one", own, tmp_path / "many", others)


def test_rows_without_a_response_hold_nobody_up(tmp_path) -> None:
    """Batches of four: in some a process has nothing to learn, and in one none has."""
    rows = [TokenExample(p, r) for p, r in zip(prompts(8), [(), (), (), (5, 1)] * 2, strict=True)]
    changes = {"examples": rows, "optimisation": {"micro_batch_size": 1}}
    own = train_by(1, tmp_path / "one", "sft", **changes)
    for shard in (False, True):
        folder = tmp_path / str(shard)
        assert_same(
            tmp_path / "one", own, folder, train_by(2, folder, "sft", shard=shard, **changes)
        )


def test_gradient_checkpointing_gathers_parts_again(tmp_path) -> None:
    changes = {"optimisation": {"gradient_checkpointing": True}}
    own = train_by(1, tmp_path / "one", "sft", **changes)
    others = train_by(2, tmp_path / "many", "sft", shard=True, **changes)
    assert_same(tmp_path / "one", own, tmp_path / "many", others)


def interrupted(folder: Path, method: str, changes: dict, machine: Machine, group: Group) -> None:
    """Ends in the second validation, when the state of step 2 is kept."""
    run = make_run(folder, method, group, **changes)
    calls = iter(range(9))

    def breaking(model) -> Validation:
        if next(calls) == 1:
            raise InterruptedRunError
        return run.validate(model)

    train(dataclasses.replace(run, validate=breaking))


@pytest.mark.parametrize(
    ("before", "after", "method", "shard"),
    [(2, 1, "skd", False), (1, 2, "sft", False), (2, 3, "sft", False), (2, 1, "sft", True)],
)
def test_a_run_goes_on_with_another_number_of_processes(
    before, after, method, shard, tmp_path
) -> None:
    own = train_by(1, tmp_path / "one", method)
    folder = tmp_path / "broken"
    work = partial(interrupted, folder, method, {"shard": shard})
    with pytest.raises(InterruptedRunError):
        together(work, processes(tmp_path, before))
    assert json.loads((folder / "state" / "counts.json").read_text())["step"] == 2
    assert_same(tmp_path / "one", own, folder, train_by(after, folder, method))


def test_parts_take_up_what_one_process_has_left(tmp_path) -> None:
    own = train_by(1, tmp_path / "one", "sft")
    folder = tmp_path / "broken"
    with pytest.raises(InterruptedRunError):
        together(partial(interrupted, folder, "sft", {}), processes(tmp_path, 1))
    assert_same(tmp_path / "one", own, folder, train_by(2, folder, "sft", shard=True))


@pytest.mark.parametrize(
    ("size", "shard", "message"), [(5, False, "batches of 4;"), (3, True, "in equal parts")]
)
def test_more_processes_than_rows_are_refused(size, shard, message, tmp_path) -> None:
    with pytest.raises(UserError, match=message):
        train_by(size, tmp_path, "sft", shard=shard)
