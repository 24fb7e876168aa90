"""Real GSM8K, DialogSum, SVAMP and FLORES files, where a copy lies beside the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from skd.data.prepare import prepare, prepare_test
from skd.data.settings import Columns, Data, Files
from skd.errors import UserError
from skd.results.data import DataCard
from skd.tasks.arithmetic import answer_text, plain_number, same_answer

REAL = Path(__file__).parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="no real data beside the repository")


def run(tmp_path: Path, task: str, train: Path, **settings: Any) -> DataCard:
    files = {key: str(settings.pop(key)) for key in ("validation", "test") if key in settings}
    columns = Columns(**settings.pop("columns"))
    source = Files(kind="files", columns=columns, train=str(train), **files)
    return prepare(Data(task=task, source=source, **settings), "real", tmp_path)  # type: ignore[arg-type]


def rows(tmp_path: Path, split: str) -> list[dict[str, Any]]:
    with (tmp_path / "data" / "real" / f"{split}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_gsm8k(tmp_path: Path) -> None:
    card = run(
        tmp_path,
        "arithmetic",
        REAL / "gsm8k" / "train.jsonl",
        test=REAL / "gsm8k" / "test.jsonl",
        columns={"source": "question", "target": "answer"},
        train_size=1000,
        validation_size=200,
    )
    counts = {split: facts.rows for split, facts in card.splits.items()}
    assert counts == {"train": 1000, "validation": 200, "test": 1319}
    for row in rows(tmp_path, "test"):
        assert "<<" not in row["target"]
        assert row["target"].splitlines()[-1].startswith("#### ")
        assert row["references"] == [row["target"]]


def test_dialogsum_has_a_dialogue_in_two_splits_which_is_found_and_can_be_dropped(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        "validation": REAL / "dialogsum" / "dev.jsonl",
        "columns": {"source": "dialogue", "target": "summary"},
        "test_size": 50,
    }
    train = REAL / "dialogsum" / "train_part.jsonl"
    with pytest.raises(UserError, match=r"train_part\.jsonl, line \d+\) repeats a source text"):
        run(tmp_path, "summarization", train, **settings)
    card = run(tmp_path, "summarization", train, duplicates="drop", **settings)
    assert card.duplicates.dropped == 1
    assert card.splits["test"].rows == 50


def test_dialogsums_three_summaries_are_references(tmp_path: Path) -> None:
    run(
        tmp_path,
        "summarization",
        REAL / "dialogsum" / "test.jsonl",
        columns={"source": "dialogue", "references": ["summary1", "summary2", "summary3"]},
    )
    for row in rows(tmp_path, "test"):
        assert 2 <= len(row["references"]) <= 6
        assert row["target"] == row["references"][0]
        assert row["source"].startswith("#Person")


def test_svamp_joins_two_columns_and_ends_with_its_answer(tmp_path: Path) -> None:
    run(
        tmp_path,
        "arithmetic",
        REAL / "svamp" / "SVAMP.json",
        columns={"source": "{Body} {Question}", "target": "Equation", "answer": "Answer"},
        test_size=300,
        validation_size=100,
    )
    taken = rows(tmp_path, "test")
    assert len(taken) == 300
    assert all(row["source"].rstrip().endswith("?") for row in taken)
    assert all(row["target"].startswith("( ") for row in taken)
    answers = [float(row["target"].split("#### ")[1]) for row in taken]
    assert all(answer == int(answer) for answer in answers)


def test_svamp_is_tested_by_models_of_gsm8k_and_shares_no_question_with_it(tmp_path: Path) -> None:
    test = str(REAL / "svamp" / "SVAMP.json")
    columns = Columns(source="{Body} {Question}", answer="Answer")
    source = Files(kind="files", columns=columns, test=test)
    data = Data(task="arithmetic", source=source, tests="gsm8k")
    with (REAL / "gsm8k" / "train.jsonl").open(encoding="utf-8") as file:
        trained = {"train": [json.loads(line)["question"] for line in file]}
    card = prepare_test(data, "svamp", "Q: {source}", trained, tmp_path, tmp_path / "test_sets")
    assert card.duplicates.dropped == 0
    # Questions that stand there twice are one row.
    assert card.splits["test"].rows + card.duplicates.merged == 1000
    with (tmp_path / "test_sets" / "svamp" / "test.jsonl").open(encoding="utf-8") as file:
        taken = [json.loads(line) for line in file]
    for row in taken:
        answer = answer_text(row["target"])
        assert answer is not None
        assert plain_number(answer) is not None
        assert same_answer(rf"\boxed{{{answer}}}", row["target"])


def test_gsm8ks_own_answers_are_plain_numbers_and_right() -> None:
    with (REAL / "gsm8k" / "test.jsonl").open(encoding="utf-8") as file:
        targets = [json.loads(line)["answer"] for line in file]
    for target in targets:
        answer = answer_text(target)
        assert answer is not None
        assert plain_number(answer) is not None
        assert same_answer(rf"so \boxed{{\${answer}}}.", target)
        assert same_answer(rf"so \boxed{{{answer}\text{{ dollars}}}}", target)


def test_flores_lines_zipped_to_one_file(tmp_path: Path) -> None:
    sides = [
        (REAL / "flores200" / f"{side}.devtest").read_text(encoding="utf-8").splitlines()
        for side in ("asm_Beng", "eng_Latn")
    ]
    lines = [json.dumps({"as": a, "en": e}) for a, e in zip(*sides, strict=True)]
    (tmp_path / "flores.jsonl").write_text("\n".join(lines))
    card = run(
        tmp_path,
        "translation",
        tmp_path / "flores.jsonl",
        columns={"source": "as", "target": "en"},
        validation_size=100,
        test_size=200,
    )
    counts = {split: facts.rows for split, facts in card.splits.items()}
    assert counts == {"train": 712, "validation": 100, "test": 200}
