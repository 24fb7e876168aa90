"""COMET (Rei et al. 2022) through unbabel-comet, only where a checkpoint is configured.

An example's score is the maximum over its references, as for ROUGE and sentence chrF; the
system score is the mean, times 100. Nothing else is ever reported under this name: without a
checkpoint the metric is "not scored". A segment is scored once: its raw score is kept on disk
under the contents of the checkpoint and the three texts. unbabel-comet takes 6-16 s to import
and a checkpoint gigabytes, so both are loaded when the first unknown segment is met.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from skd.errors import UserError, refusal
from skd.metrics import known
from skd.metrics.base import Batch, Comet, NotScored, Result, mean_result, references_signature

NOT_CONFIGURED = "no checkpoint is configured (evaluate.comet is null in params.yaml)"
BATCH_SIZE = 16
KEEP_EVERY = 64 * BATCH_SIZE  # segments between two writes: what a killed process loses at most
ENCODER_FILES = ("*.json", "*.model", "*.txt")  # configuration and tokenizer

Segment = tuple[str, str, str]  # source, output, reference


@dataclass(frozen=True)
class Checkpoint:
    """All that a score depends on beside the texts; on disk, not in memory."""

    weights: Path
    hparams: Path
    encoder: Path  # folder of ENCODER_FILES
    fingerprint: str  # a hash of the contents of these and of unbabel-comet's version


def comet(batch: Batch) -> Result | NotScored:
    if batch.comet is None:
        return NotScored(NOT_CONFIGURED)
    segments = [
        [(str(row["source"]), output, reference) for reference in references]
        for row, output, references in zip(batch.rows, batch.outputs, batch.references, strict=True)
    ]
    values = _scores(batch.comet, [segment for group in segments for segment in group])
    best = [100.0 * max(values[segment] for segment in group) for group in segments]
    return mean_result(best, _signature(batch, batch.comet))


def _signature(batch: Batch, settings: Comet) -> str:
    place = Path(settings.checkpoint)
    name = place.name if place.exists() else settings.checkpoint
    return (
        f"{references_signature(batch)}|max over references|model:{name}|"
        f"unbabel-comet:{version('unbabel-comet')}"
    )


# ------------------------------------------------------------------- segments
def _scores(settings: Comet, segments: Sequence[Segment]) -> dict[Segment, float]:
    """The raw score of each distinct segment."""
    checkpoint = locate(settings.checkpoint, settings.encoder)
    keys = {segment: _key(checkpoint, segment) for segment in segments}
    known_scores = known.read(settings.cache, keys.values())
    unknown = [segment for segment, key in keys.items() if key not in known_scores]
    for part in _parts(unknown, settings.bar):
        values = _predict(checkpoint, part)
        scored = dict(zip((keys[segment] for segment in part), values, strict=True))
        known.write(settings.cache, scored)
        known_scores |= scored
    return {segment: known_scores[key] for segment, key in keys.items()}


def _parts(segments: list[Segment], bar: int | None) -> Iterator[list[Segment]]:
    """Like lengths side by side, for little padding; a progress bar where there are many."""
    ordered = sorted(segments, key=lambda segment: len(segment[0]))
    hidden = bar is None or len(ordered) <= KEEP_EVERY
    with tqdm(total=len(ordered), desc="COMET", unit=" segments", position=bar, leave=False,
              disable=hidden) as shown:  # fmt: skip
        for start in range(0, len(ordered), KEEP_EVERY):
            part = ordered[start : start + KEEP_EVERY]
            yield part
            shown.update(len(part))


def _predict(checkpoint: Checkpoint, segments: Sequence[Segment]) -> list[float]:
    import torch

    gpus = int(torch.cuda.is_available())
    named = [dict(zip(("src", "mt", "ref"), segment, strict=True)) for segment in segments]
    prediction = load(checkpoint).predict(
        named, batch_size=BATCH_SIZE, gpus=gpus, progress_bar=False, num_workers=0
    )
    return [float(value) for value in prediction.scores]


def _key(checkpoint: Checkpoint, segment: Segment) -> bytes:
    return hashlib.sha256(json.dumps([checkpoint.fingerprint, *segment]).encode()).digest()


# ----------------------------------------------------------------- checkpoint
def locate(checkpoint: str, encoder: str | None) -> Checkpoint:
    """Find a folder `ROOT/hparams.yaml, ROOT/checkpoints/model.ckpt` or a Hub id; loads nothing.

    The encoder's configuration and tokenizer come from `encoder`, else from `ROOT/encoder`,
    else from the Hub name in `hparams.yaml`.

    Raises:
        UserError: a file is missing, or the Hub cannot be reached.
    """
    root = _folder(checkpoint, "evaluate.comet", None)
    weights, hparams = root / "checkpoints" / "model.ckpt", root / "hparams.yaml"
    for file in (weights, hparams):
        if not file.is_file():
            raise UserError(
                f"evaluate.comet: {file} is missing; a COMET folder holds hparams.yaml and "
                "checkpoints/model.ckpt"
            )
    beside = root / "encoder"
    name = encoder or (str(beside) if beside.is_dir() else _read(hparams)["pretrained_model"])
    folder = _folder(name, "evaluate.comet_encoder", [*ENCODER_FILES])
    texts = sorted({path for pattern in ENCODER_FILES for path in folder.glob(pattern)})
    return Checkpoint(weights, hparams, folder, _fingerprint([weights, hparams, *texts]))


def _fingerprint(files: Sequence[Path]) -> str:
    contents = [f"{file.name} {_content(file, _state(file))}" for file in files]
    return hashlib.sha256("\n".join([version("unbabel-comet"), *contents]).encode()).hexdigest()


def _state(file: Path) -> tuple[int, ...]:
    """What changes with the file's content, as far as the file system can tell."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=64)
def _content(file: Path, state: tuple[int, ...]) -> str:  # noqa: ARG001 - a part of the cache's key
    """SHA-256; about a second per gigabyte, so once per process and state of the file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@lru_cache(maxsize=1)
def load(checkpoint: Checkpoint) -> Any:
    """The model in memory, kept for the next call with the same contents."""
    from comet.models import str2model

    # a few lines of advice at each prediction, across the progress bar
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    hparams = _read(checkpoint.hparams)
    identifier = hparams.get("class_identifier")
    if identifier not in str2model:
        raise UserError(
            f"evaluate.comet: hparams.yaml names class_identifier {identifier!r}; "
            f"known: {', '.join(str2model)}"
        )
    changes = {"pretrained_model": str(checkpoint.encoder)}
    if hparams.get("layer_transformation") == "sparsemax_patch":
        changes["layer_transformation"] = "softmax"  # as unbabel-comet's own loader does
    return str2model[identifier].load_from_checkpoint(
        str(checkpoint.weights),
        map_location="cpu",
        strict=False,
        load_pretrained_weights=False,
        local_files_only=True,
        **changes,
    )


def _read(hparams: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(hparams.read_text(encoding="utf-8"))
    return values


def _folder(name: str, parameter: str, patterns: list[str] | None) -> Path:
    """A local folder as it is, a Hub id through the Hub's cache."""
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists():
        raise UserError(f"{parameter}: {name} is no folder; give a folder or a Hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise refusal(error)(
            f"{parameter}: {name!r} is no local folder and cannot be had from the Hub "
            f"({type(error).__name__}). Download it where the Hub can be reached, put the folder "
            f"here and name it in {parameter}, or set evaluate.comet to null"
        ) from error
