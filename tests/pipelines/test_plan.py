"""A plan: what it counts, when it fits, and what it proposes where it does not."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipelines import plan as command
from pipelines.orchestration.tally import flat, tally
from pipelines.planning.advice import Advice, advise, get, halves, put, remedies, with_advice
from pipelines.planning.configurations import SHAPES, Unknown, sizes_of
from pipelines.planning.devices import Device
from pipelines.planning.hours import Speed, forward
from pipelines.planning.lengths import HEALING, Rows, TaskLengths, healing_lengths, widest
from pipelines.planning.plan import Plan, make_plan
from pipelines.planning.sizes import Sizes
from pipelines.planning.table import plan_text, size_text, verdict
from pipelines.planning.work import Models, trainings
from pipelines.profile import compose
from pipelines.runs.pruning import HEALING_BUDGET
from pipelines.schema import Params, parse
from pipelines.stages import base
from skd.data.record import ExampleRow
from skd.errors import UserError
from skd.models.settings import FolderModel, HubModel
from skd.training.settings import Optimisation

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
SPEED = Speed(operations=1e11, bytes=1e10, launch=1e-6)
# As the pages of their repositories say; NLLB's round them, and the library's M2M-100 of their
# published config.json has these
PARAMETERS = {
    "facebook/nllb-200-3.3B": 3_344_863_232,
    "facebook/nllb-200-distilled-600M": 615_073_792,
    "google/gemma-7b-it": 8_537_680_896,
    "google/gemma-2b-it": 2_506_172_416,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-3-270m-it": 268_098_176,
    "Qwen/Qwen2-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "microsoft/Phi-3-medium-4k-instruct": 13_960_238_080,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("SKD_WORKERS", raising=False)


def params_of(profile: str = "embedded") -> Params:
    return parse(yaml.safe_load(compose(profile, ROOT / "profiles")))


def device(memory: float = 64, kind: str = "cpu") -> Device:
    return Device(kind, "a test", round(memory * GIB), GIB // 2, 2, 1000 * GIB)


known_sizes = functools.cache(sizes_of)


def planned(params: Params, on: Device, speed: Speed | None = None) -> Plan:
    sizes = {
        role: known_sizes(getattr(params.models, role), params.models)
        for role in ("teacher", "student")
    }
    others = {
        name: sizes_of(params.scaling.students[name], params.models)
        for name in params.experiment.students
    }
    lengths = {
        task: TaskLengths(params.budget[task], (1000, 100)) for task in params.experiment.tasks
    }
    lengths[HEALING] = TaskLengths(HEALING_BUDGET, (1000, 1))
    return make_plan(params, Models(**sizes, others=others), lengths, on, speed)  # type: ignore[arg-type]


# -------------------------------------------------------------------------- sizes
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_shape_has_the_parameters_that_its_model_has(name) -> None:
    hub = HubModel(kind="hub", id=name)
    sizes = sizes_of(hub, replace(params_of().models, teacher=hub, student=hub))
    assert isinstance(sizes, Sizes)
    assert sizes.parameters == PARAMETERS[name]


def test_every_shape_is_checked_and_every_hub_model_of_a_profile_has_one() -> None:
    shapes = {str(path.relative_to(SHAPES))[:-5] for path in SHAPES.rglob("*.json")}
    assert shapes == set(PARAMETERS)
    named = set()
    for path in (ROOT / "profiles").glob("*.yaml"):
        models = yaml.safe_load(path.read_text(encoding="utf-8")).get("models", {})
        pair = (models.get(role, {}) for role in ("teacher", "student"))
        named |= {model["id"] for model in pair if "id" in model}
    assert named <= shapes


def test_a_model_that_is_not_at_hand_is_named_with_the_reason(tmp_path) -> None:
    folder = FolderModel(kind="folder", path=str(tmp_path))
    sizes = sizes_of(folder, replace(params_of().models, teacher=folder))
    assert isinstance(sizes, Unknown)
    assert sizes.name == tmp_path.name
    assert "config.json" in sizes.reason


# ------------------------------------------------------------------------ lengths
def test_healing_reads_the_rows_of_all_tasks_in_its_own_budget(monkeypatch) -> None:
    rows = {
        task: [ExampleRow(id=f"{i}", source="a", target="b") for i in range(3)] for task in "st"
    }
    monkeypatch.setattr(
        "pipelines.planning.lengths.task_lengths",
        lambda task, _data, budget, _models: TaskLengths(
            budget, (3, 0), rows[task], (), {f"{i}": (ord(task), i + 1) for i in range(3)}
        ),
    )
    params = params_of()
    lengths = healing_lengths(
        "st", dict.fromkeys("st", next(iter(params.data.values()))), params.models
    )
    assert lengths.budget == HEALING_BUDGET
    seen = lengths.seen(None, 0)
    assert sorted(zip(seen.prompts, seen.responses, strict=True)) == sorted(
        (ord(task), i + 1) for task in "st" for i in range(3)
    )


def test_a_student_that_heals_is_planned_to() -> None:
    params = params_of("smollm2")
    shape = HubModel(kind="hub", id="HuggingFaceTB/SmolLM2-135M-Instruct")
    models = replace(params.models, teacher=shape)
    for heal, runs in ((params.models.student.heal, 1), (None, 0)):
        student = replace(params.models.student, heal=heal)
        changed = replace(params, models=replace(models, student=student))
        plan = planned(changed, device())
        assert [stage.runs for stage in plan.stages if stage.stage == "base"] == [1] * runs


def test_the_widest_batch_is_of_the_rows_that_the_run_sees() -> None:
    rows = Rows([5, 9, 7], [4, 1, 2], count=3)
    epoch = Optimisation(steps=9, batch_size=2, learning_rate=1e-3)
    assert widest(rows, epoch, 0, sampled=None) == 10
    assert widest(rows, epoch, 0, sampled=20) == 29
    one = replace(epoch, steps=1, batch_size=1)
    assert {widest(rows, one, seed, None) for seed in range(20)} == {9, 10}


# --------------------------------------------------------------------------- runs
def test_every_stage_that_trains_is_there_with_its_runs() -> None:
    params = params_of("smoke")
    stages = {stage.stage: stage for stage in planned(params, device()).stages}
    methods = params.experiment.methods
    assert set(stages) == {
        "base", "sft", *(f"distill@{name}" for name in methods),
        "sweep", "fairness", "scaling@narrow", "evaluate",
    }  # fmt: skip
    assert stages["base"].runs == 2
    assert stages["sft"].runs == 2
    assert stages["sweep"].runs == 2
    assert stages["fairness"].runs == 2 * 2 + 2 * 3
    assert stages["scaling@narrow"].runs == 3
    assert stages["distill@skd"].prompts == params.distill.optimisation.prompts
    assert stages["evaluate"].runs == 2 + 1 + len(methods)


@pytest.mark.parametrize("profile", ["embedded", "full-analyses", "full-fairness"])
def test_the_countdown_counts_the_runs_that_the_plan_counts(profile) -> None:
    """But for models that come before all runs of a task: teacher, pretrained and untrained ones"""
    document = yaml.safe_load(compose(profile, ROOT / "profiles"))
    plan = planned(parse(document), device())
    before = {"sft": 3, "scaling": 1, "evaluate": 6}
    counted = tally({stage.stage: flat(document) for stage in plan.stages})
    assert counted == {
        stage.stage: stage.runs - before.get(stage.stage.partition("@")[0], 0)
        for stage in plan.stages
        if stage.stage != "base"
    }


def test_only_interleaved_and_on_policy_runs_sample() -> None:
    params = params_of()
    teacher, student = (
        sizes_of(model, params.models) for model in (params.models.teacher, params.models.student)
    )
    lengths = {task: TaskLengths(row, (10, 10)) for task, row in params.budget.items()}
    runs = list(trainings(params, Models(teacher, student, {}), lengths))  # type: ignore[arg-type]
    sampled = {run.settings.method for run in runs if run.sampled}
    assert sampled == {"on_policy_kd", "imit_kd", "skd", "skd_mixed_loss"}
    assert {run.settings.method for run in runs if run.interleaved} == {"skd", "skd_mixed_loss"}


# ------------------------------------------------------------------- memory and time
def test_runs_side_by_side_need_the_memory_of_each_on_a_cpu_alone() -> None:
    params = params_of()
    on_cpu = {stage.stage: stage for stage in planned(params, device()).stages}
    on_cuda = {stage.stage: stage for stage in planned(params, device(kind="cuda")).stages}
    assert on_cpu["distill@skd"].side_by_side == 3
    assert on_cpu["evaluate"].side_by_side == 2
    assert on_cpu["distill@skd"].memory > 2 * on_cpu["distill@skd"].peak.bytes
    assert {stage.side_by_side for stage in on_cuda.values()} == {1}
    alone = put(params, "runtime.workers", 1)
    (one,) = {stage.side_by_side for stage in planned(alone, device()).stages}
    assert one == 1


def test_accelerators_share_the_time_and_have_a_memory_each() -> None:
    params = params_of()
    on_two = put(params, "runtime.per_device", 2)
    eight = replace(device(kind="cuda"), count=8)
    asked = ((params, device(kind="cuda")), (params, eight), (on_two, eight))
    one, each, shared = (
        next(stage for stage in planned(*both, SPEED).stages if stage.stage == "distill@skd")
        for both in asked
    )
    runs = len(params.experiment.tasks) * len(params.experiment.seeds)
    assert runs < 2 * 8
    assert (one.side_by_side, each.side_by_side, shared.side_by_side) == (1, 8, runs)
    assert one.memory == each.memory == one.peak.bytes < shared.memory <= 2 * one.peak.bytes
    assert one.seconds is not None
    assert each.seconds == shared.seconds == pytest.approx(one.seconds / 8)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("distill.optimisation.micro_batch_size", 1),
        ("distill.optimisation.gradient_checkpointing", True),
        ("budget.summarization.max_prompt_tokens", 512),
    ],
)
def test_a_remedy_lowers_the_peak_of_the_stage_that_it_is_for(path, value) -> None:
    params = params_of("paper-gemma")
    lower = put(params, path, value)
    before, after = (
        {stage.stage: stage.memory for stage in planned(each, device(kind="cuda")).stages}
        for each in (params, lower)
    )
    assert after["distill@skd"] < before["distill@skd"]


def test_a_pass_takes_longer_for_more_tokens_and_never_less_than_reading_its_weights() -> None:
    params = params_of("paper-qwen2")
    sizes = sizes_of(params.models.student, params.models)
    assert isinstance(sizes, Sizes)
    one, many = (forward(sizes, count, count, 4, SPEED) for count in (1, 4096))
    read = 4 * sizes.parameters / SPEED.bytes
    assert read <= one < many


def test_time_is_told_where_a_device_was_timed() -> None:
    params = params_of("smoke")
    assert all(stage.seconds is None for stage in planned(params, device()).stages)
    timed = planned(params, device(), SPEED).stages
    assert all(stage.seconds and stage.seconds > 0 for stage in timed)


def test_an_encoder_decoder_pair_is_planned() -> None:
    """A longer source makes the encoder's activations more, and a decoder's no less."""
    params = params_of("nllb")
    longer = put(params, "budget.translation.max_prompt_tokens", 512)
    short, long = (
        {stage.stage: stage for stage in planned(each, device(80, "cuda"), SPEED).stages}
        for each in (params, longer)
    )
    assert long["distill@skd"].memory > short["distill@skd"].memory
    assert long["distill@skd"].seconds > short["distill@skd"].seconds > 0
    assert {"sft", "distill@seq_kd", "distill@skd", "evaluate"} <= set(short)


# -------------------------------------------------------------------------- advice
def missing_above(memory: float, kind: str = "cuda"):
    return lambda params: planned(params, device(memory, kind)).over


def test_nothing_is_advised_where_it_fits() -> None:
    assert advise(params_of("smoke"), 3, missing_above(64)) == ([], True)


def test_advice_is_enough_needed_and_in_the_order_of_its_cost() -> None:
    params = params_of("paper-qwen2")
    missing = missing_above(30)
    assert missing(params) > 0
    advice, enough = advise(params, 1, missing)
    assert enough
    assert missing(with_advice(params, advice)) == 0
    for one in advice:  # none is needless
        assert missing(with_advice(params, [other for other in advice if other is not one])) > 0
    order = [remedy.path for remedy in remedies(params, 1)]
    assert [one.path for one in advice] == sorted((one.path for one in advice), key=order.index)
    assert any(one.path == "sft.teacher" for one in advice)  # 16 bytes for each of 7.6 billion


def test_what_no_setting_can_do_is_said() -> None:
    _, enough = advise(params_of("paper-gemma"), 1, missing_above(4))
    assert not enough


def test_every_setting_that_is_advised_exists() -> None:
    for profile in ("embedded", "paper-gemma"):
        params = params_of(profile)
        for remedy in remedies(params, 3):
            for value in remedy.values:
                changed = with_advice(params, [Advice(remedy.path, value, "")])
                assert get(changed, remedy.path) == value


def test_halves() -> None:
    assert halves(8) == [4, 2, 1]
    assert halves(1) == []
    assert halves(96, least=32) == [48]


# --------------------------------------------------------------------- what is shown
def test_the_table_has_every_stage_and_the_parts_add_up() -> None:
    plan = planned(params_of("smoke"), device())
    text = "\n".join(plan_text(plan))
    for stage in plan.stages:
        assert text.count(f"| {stage.stage} ") == 2
        assert stage.peak.bytes == sum(stage.peak.parts.values())
    assert size_text(sum(plan.disk.values())) in text


@pytest.mark.parametrize(("share", "word"), [(0.5, "yes"), (0.9, "hardly"), (1.1, "no")])
def test_a_verdict_leaves_room_for_the_error_of_the_estimate(share, word) -> None:
    assert verdict(share) == word


def test_the_command_ends_with_status_2_and_settings_where_it_does_not_fit(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["paper-gemma", "--device", "cuda", "--memory", "80"])
    assert ended.value.code == 2
    shown = capsys.readouterr().out
    assert "sft.teacher.adapter: {" in shown
    assert "8,538 million parameters" in shown


def test_a_check_says_nothing_where_it_fits(capsys) -> None:
    command.main(["smoke", "--device", "cuda", "--memory", "80", "--check"])
    assert "|" not in capsys.readouterr().out


def test_the_command_names_what_it_cannot_tell(tmp_path, capsys, monkeypatch) -> None:
    raw = copy.deepcopy(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    for role in ("teacher", "student"):
        raw["models"][role] = {"kind": "folder", "path": f"no-such-{role}"}
    (tmp_path / "params.yaml").write_text(json.dumps(raw))
    monkeypatch.chdir(tmp_path)
    command.main([])
    shown = capsys.readouterr().out
    assert "no-such-teacher: not at hand" in shown
    assert "cannot be told" in shown


class Ended:
    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


@pytest.mark.parametrize(
    ("status", "words"),
    [(2, r"does not fit this device.*plan: false"), (1, r"could not be made.*1.*plan: false")],
)
def test_base_begins_nothing_where_the_plan_says_no_or_fails(monkeypatch, status, words) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], check: bool) -> Ended:
        asked.append(command)
        return Ended(status)

    monkeypatch.setattr(base.subprocess, "run", run)
    monkeypatch.setattr(base, "base", lambda parameters: pytest.fail("it began"))
    with pytest.raises(UserError, match=words):
        base.main([])
    assert asked[0][1:] == ["-m", "pipelines.plan", "--check"]


@pytest.mark.parametrize("runtime", [{"plan": False}, {"engine": "ray"}])
def test_base_begins_where_the_plan_fits_or_is_not_asked(monkeypatch, runtime) -> None:
    """The memory that a cluster's runs have is not this machine's."""
    begun = []
    monkeypatch.setattr(base, "base", begun.append)
    monkeypatch.setattr(base, "write_metrics", lambda *_: None)
    monkeypatch.setattr(base.subprocess, "run", lambda *_, **__: Ended(0))
    base.main([])
    parameters = replace(begun[0], runtime=replace(begun[0].runtime, **runtime))
    monkeypatch.setattr(base, "stage_parameters", lambda *_: parameters)
    monkeypatch.setattr(base.subprocess, "run", lambda *_, **__: pytest.fail("it was asked"))
    base.main([])
    assert begun[1:] == [parameters]
