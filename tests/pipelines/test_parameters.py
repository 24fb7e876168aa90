"""What a stage reads of params.yaml: its own fields, checked, each mistake named by its path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import yaml

from pipelines.parameters import At, paths, read_parameters, unchanged
from pipelines.stages.command import item_parameters, stage_parameters
from skd.errors import UserError
from skd.settings import Positive
from skd.training.settings import MethodSettings


@dataclass(frozen=True)
class Parameters:
    names: Annotated[list[str], At("experiment.names")]
    row: Annotated[MethodSettings, At("methods.{item}")]
    size: Positive


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(tmp_path)
    document = {
        "experiment": {"names": ["a"]},
        "methods": {"skd": {"method": "skd"}, "odd": {"method": "skd", "k": 5}},
        "size": 3,
        "other": {"nobody": "reads this"},
    }
    Path("params.yaml").write_text(yaml.safe_dump(document))
    return document


def test_a_field_is_the_parameter_of_its_name_or_of_its_path() -> None:
    assert paths(Parameters) == {
        "names": "experiment.names",
        "row": "methods.{item}",
        "size": "size",
    }


def test_a_stage_gets_what_it_names_and_the_item_fills_its_path(document) -> None:
    name, parameters = item_parameters(
        Parameters, "what it does", ["skd"], item="method", section="methods"
    )
    assert name == "skd"
    assert parameters == Parameters(["a"], MethodSettings("skd"), 3)


@pytest.mark.parametrize(
    ("item", "change", "message"),
    [
        ("nowhere", {}, "parameter 'methods.nowhere' is missing"),
        ("odd", {}, "unknown parameter 'methods.odd.k'"),
        ("skd", {"size": 0}, "size: .*greater than 0"),
        ("skd", {"experiment": {}}, "parameter 'experiment.names' is missing"),
    ],
)
def test_a_mistake_is_told_with_its_path(document, item, change, message) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(document | change))
    with pytest.raises(UserError, match=message):
        read_parameters(Parameters, item)


def test_all_mistakes_are_told_at_once(document) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"size": -1}))
    with pytest.raises(UserError) as told:
        read_parameters(Parameters, "skd")
    assert len(str(told.value).splitlines()) == 3


def test_a_stage_without_a_row_takes_no_argument(document) -> None:
    @dataclass(frozen=True)
    class Own:
        size: Annotated[int, At("size")]

    globals()["Own"] = Own
    with pytest.raises(SystemExit):
        stage_parameters(Own, "what it does", ["surplus"])


# ----------------------------------------------------------------- changed meanwhile
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [("size", 4, "size"), ("methods", {}, "methods.skd"), ("other", {}, None), ("size", 3, None)],
)
def test_a_parameter_that_changes_while_a_stage_runs_ends_it(document, path, value, said) -> None:
    """DVC would note the new value beside what was made with the former one."""

    def stage() -> None:
        read_parameters(Parameters, "skd")
        Path("params.yaml").write_text(yaml.safe_dump({**document, path: value}))

    if said is None:
        with unchanged():
            stage()
        return
    with pytest.raises(UserError, match=f"{said} changed while this ran"), unchanged():
        stage()
    with unchanged():  # the next one reads what stands there
        pass


@dataclass(frozen=True)
class OfThisMachine:
    runtime: dict[str, int]


def test_how_this_machine_works_may_change_meanwhile(document) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({**document, "runtime": {"workers": 1}}))
    with unchanged():
        read_parameters(OfThisMachine)
        Path("params.yaml").write_text(yaml.safe_dump({**document, "runtime": {"workers": 2}}))
