"""Model cards: licences of all that a student is made of, and front matter that the Hub reads."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pipelines.schema import load
from skd.report.reading.reader import read_experiment
from skd.report.sections.cards import cards
from skd.report.sections.provenance import Provenance
from skd.report.sections.tables import values_text
from skd.results.layers import LayerChoice, LeftOut
from skd.settings import plain

FOUND = Provenance("abc", dirty=False, parameters_hash="0", command="dvc repro report")
HUB_TEACHER = {"kind": "hub", "id": "org/teacher", "revision": "1" * 40}
HUB_STUDENT = {"kind": "hub", "id": "org/student", "revision": "2" * 40}


@pytest.fixture
def card(make_tree):
    """A function from result of the pair and the data to a parsed card."""
    root = make_tree({"sft": 50, "skd": 70}, {"translation": "translation"}, n=3)

    def edit(name: str, change) -> None:
        path = root / "metrics" / name
        result = json.loads(path.read_text())
        change(result)
        path.write_text(json.dumps(result))

    def build(
        teacher: dict[str, Any],
        student: dict[str, Any],
        data: dict[str, Any],
        layers: LayerChoice | None = None,
    ) -> ModelCard:
        edit("base.json", lambda result: result.update(layers=plain(layers)))
        edit("base.json", lambda result: result["teacher"]["origin"].update(teacher))
        edit("base.json", lambda result: result["student"]["origin"].update(student))
        edit("prepare/translation.json", lambda result: result["card"].update(data))
        experiment = load(root / "params.yaml").experiment
        run = read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds)
        return ModelCard(cards(run, FOUND)["translation-skd.md"])

    return build


def test_everything_of_one_licence_and_the_front_matter_is_the_hubs(card):
    made = card(
        HUB_TEACHER | {"license": "apache-2.0"},
        HUB_STUDENT | {"license": "Apache 2.0"},
        {
            "source": {"kind": "hub", "id": "org/data", "revision": "3" * 40},
            "license": "Apache-2.0",
        },
    )
    assert made.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "base_model": ["org/student"],
        "datasets": ["org/data"],
        "metrics": ["chrf", "bleu"],
        "tags": ["knowledge-distillation", "skd", "translation"],
    }
    assert made.text.lstrip().startswith("# translation, `skd`")
    assert "| teacher | org/teacher, 410,000 parameters, fine-tuned" in made.text
    assert ModelCard(str(made)).data.to_dict() == made.data.to_dict()


def test_an_encoder_decoder_is_loaded_as_one_and_listed_under_its_task(make_tree):
    root = make_tree({"sft": 50, "skd": 70}, {"translation": "translation"}, n=3)
    path = root / "metrics" / "base.json"
    result = json.loads(path.read_text()) | {"encoder_decoder": True}
    path.write_text(json.dumps(result))
    experiment = load(root / "params.yaml").experiment
    run = read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds)
    made = ModelCard(cards(run, FOUND)["translation-skd.md"])
    assert made.data.pipeline_tag == "translation"
    assert "model = AutoModelForSeq2SeqLM.from_pretrained(folder)" in made.text


def test_a_set_of_other_origin_stands_in_the_cards_of_the_students_it_tested(make_tree):
    methods = {"sft": 50, "skd": {"arithmetic": 70, "translation": 70, "svamp": 40}}
    tasks = {"arithmetic": "arithmetic", "translation": "translation"}
    root = make_tree(methods, tasks, test_sets={"svamp": "arithmetic"})
    experiment = load(root / "params.yaml").experiment
    run = read_experiment(
        root, experiment.tasks, experiment.methods, experiment.seeds, {"svamp": "arithmetic"}
    )
    made = cards(run, FOUND)
    values = run.test_sets[0].models["skd"].values("exact_match")
    (line,) = (x for x in made["arithmetic-skd.md"].splitlines() if x.startswith("| svamp |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["svamp", "60", values_text(values)]
    assert "±" in cells[2]
    assert float(cells[4]) == pytest.approx(95, abs=3)  # the teacher
    assert "exact answer %:" in made["arithmetic-skd.md"]
    assert "svamp" not in made["translation-skd.md"]
    assert "other origin" not in made["translation-skd.md"]


def test_a_student_of_its_teachers_layers_tells_what_each_was_worth(card):
    chosen = LayerChoice(
        kept=[0, 2],
        rows=8,
        tokens=1234,
        whole_loss=1.5,
        cut_loss=2.5,
        even_loss=9.0,
        healed_loss=2.0,
        importance=[3.0, 0.25, 0.5],
        left_out=[LeftOut(1, 1.75)],
    )
    assert "## Layers" not in card({}, {}, {}).text
    made = card({}, {}, {}, chosen)
    part = made.text.split("## Layers")[1].split("## Method")[0]
    for line in (
        "| as many layers, evenly spaced | 9.000 |",
        "| these layers, healed by distillation | 2.000 |",
        "| 0 | +3.000 | kept |",
        "| 1 | +0.250 | left out in round 1 |",
    ):
        assert line in part
    assert "2 of the teacher's 3 layers: 0, 2." in part
    assert "8 training rows (1,234 response\ntokens)" in part
    by_hand = dataclasses.replace(chosen, importance=[], left_out=[], healed_loss=None)
    part = card({}, {}, {}, by_hand).text.split("## Layers")[1].split("## Method")[0]
    assert "named by hand" in part
    assert "| these layers, healed by distillation | – |" in part
    assert "round" not in part


def test_different_licences_all_bind(card):
    made = card(
        HUB_TEACHER | {"license": "gemma"},
        HUB_STUDENT | {"license": "apache-2.0"},
        {"license": "CC BY-SA 4.0"},
    )
    assert made.data.license == "other"
    assert made.data.license_name == "gemma-and-apache-2.0-and-cc-by-sa-4.0"
    part = made.text.split("## Licences")[1].split("## Load")[0]
    for line in ("| teacher | gemma |", "| data | CC BY-SA 4.0 |"):
        assert line in part
    assert "| student before training | apache-2.0 |" in part
    assert "bound by all of these licences" in part


def test_a_licence_that_nobody_stated_is_not_guessed(card):
    folder = {"kind": "folder", "name": "big", "license": None}
    made = card(folder, HUB_STUDENT | {"license": "mit"}, {"license": "MIT"})
    assert made.data.license == "unknown"
    assert "| teacher | not stated |" in made.text
    assert "| teacher | big, 410,000 parameters" in made.text


def test_what_is_made_in_the_run_has_no_other_owner(card):
    made = card({}, {}, {"license": None})
    assert "license" not in made.data.to_dict()
    assert "base_model" not in made.data.to_dict()
    assert made.text.count("| made in this run |") == 3


def test_a_licence_that_the_hub_does_not_know_goes_to_its_name(card):
    ours = {"license": "My: own | licence"}
    made = card(HUB_TEACHER | ours, HUB_STUDENT | ours, ours)
    assert (made.data.license, made.data.license_name) == ("other", "my-own-licence")
    assert "| teacher | My: own &#124; licence |" in made.text
