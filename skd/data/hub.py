"""Rows from a Hugging Face dataset at a pinned commit.

The presets know ids, configurations, columns and splits of the paper's data sets; anything
a user writes beside a preset wins over it. This module keeps no copy and knows no task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skd.data.settings import Columns, Hub
from skd.data.tables import SourceRow
from skd.errors import UserError, refusal


@dataclass(frozen=True)
class Join:
    key: str  # column that aligns the rows
    text: str  # column that is kept of each side, renamed to the side's configuration


@dataclass(frozen=True)
class Preset:
    id: str
    configs: tuple[str | None, ...]  # several: one per side of the pair
    columns: Columns
    splits: dict[str, str]  # ours -> theirs; a missing one is cut from train
    join: Join | None = None  # how the rows of several configurations meet
    gated: bool = False


PRESETS: dict[str, Preset] = {
    # The paper's translation data. FLORES has no training split: `dev` serves as one.
    "flores_plus": Preset(
        id="openlanguagedata/flores_plus",
        configs=("asm_Beng", "eng_Latn"),
        columns=Columns(source="asm_Beng", target="eng_Latn"),
        splits={"train": "dev", "test": "devtest"},
        join=Join(key="id", text="text"),
        gated=True,
    ),
    # The test split repeats each dialogue with another summary: merged to references later.
    "dialogsum": Preset(
        id="knkarthick/dialogsum",
        configs=(None,),
        columns=Columns(source="dialogue", target="summary"),
        splits={"train": "train", "validation": "validation", "test": "test"},
    ),
    "gsm8k": Preset(
        id="openai/gsm8k",
        configs=("main",),
        columns=Columns(source="question", target="answer"),
        splits={"train": "train", "test": "test"},
    ),
    "svamp": Preset(
        id="ChilleD/SVAMP",
        configs=(None,),
        columns=Columns(source="{Body} {Question}", answer="Answer"),
        splits={"train": "train", "test": "test"},
    ),
    "asdiv": Preset(  # all of it is its one split
        id="EleutherAI/asdiv",
        configs=(None,),
        columns=Columns(source="{body} {question}", answer="answer"),
        splits={"test": "validation"},
    ),
    "gsm_plus": Preset(
        id="qintongli/GSM-Plus",
        configs=(None,),
        # A question without an answer has "None"; no number says that.
        columns=Columns(source="question", answer="answer", skip={"answer": "None"}),
        splits={"test": "test"},
    ),
    "math": Preset(
        id="HuggingFaceH4/MATH-500",
        configs=(None,),
        columns=Columns(source="problem", target="solution", answer="answer"),
        splits={"test": "test"},
    ),
}


ELSEWHERE = "download its files on a machine with access and use `kind: files`"
REMEDY = f"Check id, config, revision and network; or {ELSEWHERE}."
GATED = f"It is gated: accept its terms on its page and set HF_TOKEN; or {ELSEWHERE}."


def read(
    source: Hub, name: str, wanted: Sequence[str]
) -> tuple[dict[str, list[SourceRow]], Columns]:
    """Raw rows per split of ours, and the columns to read them by.

    `wanted` are the splits that are read where there are any; the first must be named.

    Raises:
        UserError: the data set is out of reach, or lacks a split, a column or a row's partner.
    """
    chosen = resolve(source, name, wanted[0])
    sides = {config or "": fetch(chosen, config, source.revision) for config in chosen.configs}
    return {
        ours: _rows(chosen, sides, theirs)
        for ours, theirs in chosen.splits.items()
        if ours in wanted
    }, chosen.columns


def resolve(source: Hub, name: str, needed: str = "train") -> Preset:
    """The preset with the user's own id, configuration, columns and splits in place."""
    if source.preset is not None:
        known = PRESETS[source.preset]
    elif source.id is None or source.columns is None:
        raise UserError(f"data.{name}.source: a hub source needs a preset, or both id and columns")
    else:
        known = Preset(source.id, (None,), source.columns, {needed: needed})
    splits = source.splits or known.splits
    if needed not in splits:
        raise UserError(f"data.{name}.source.splits: name the split that serves as {needed}")
    return Preset(
        id=source.id or known.id,
        configs=(source.config,) if source.config else known.configs,
        columns=source.columns or known.columns,
        splits=splits,
        join=None if source.config else known.join,
        gated=known.gated,
    )


def fetch(preset: Preset, config: str | None, revision: str) -> Mapping[str, Any]:
    """All splits of one configuration, from the Hub or from its local cache."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    try:
        loaded = datasets.load_dataset(preset.id, config, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError, HfHubHTTPError) as error:
        # OSError covers the libraries' connection, offline, not-found and gated errors.
        side = f" ({config})" if config else ""
        raise refusal(error)(
            f"dataset {preset.id}{side} at revision {revision} cannot be loaded: "
            f"{type(error).__name__}: {error}. {GATED if preset.gated else REMEDY}"
        ) from error
    return dict(loaded)


def _rows(preset: Preset, sides: Mapping[str, Mapping[str, Any]], split: str) -> list[SourceRow]:
    tables: dict[str, list[dict[str, Any]]] = {}
    for config, splits in sides.items():
        if split not in splits:
            raise UserError(
                f"dataset {preset.id}: no split {split!r}; there are: {', '.join(splits)}"
            )
        tables[config] = splits[split].to_list()
    if preset.join is None:
        (rows,) = tables.values()
    else:
        rows = _joined(f"dataset {preset.id} {split}", preset.join, tables)
    return [(f"{preset.id} {split}, row {number}", row) for number, row in enumerate(rows, start=1)]


def _joined(
    place: str, join: Join, tables: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """One row per key, with each configuration's text under the configuration's name."""
    joined: dict[Any, dict[str, Any]] = {}
    for config, rows in tables.items():
        for row in rows:
            for column in (join.key, join.text):
                if column not in row:
                    raise UserError(
                        f"{place} ({config}): no column {column!r}; there are: {', '.join(row)}"
                    )
            joined.setdefault(row[join.key], {})[config] = row[join.text]
    for key, row in joined.items():
        lacking = [config for config in tables if config not in row]
        if lacking:
            raise UserError(f"{place}: {join.key} {key!r} is missing in {', '.join(lacking)}")
    return list(joined.values())
