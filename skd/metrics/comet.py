"""COMET (Rei et al. 2022) through unbabel-comet, only where a checkpoint is configured.

An example's score is the maximum over its references, as for ROUGE and sentence chrF; the
system score is the mean, times 100. Nothing else is ever reported under this name: without a
checkpoint the metric is "not scored". unbabel-comet takes 6-16 s to import, so it is imported
when the first example is scored.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from skd.errors import UserError
from skd.metrics.base import Batch, NotScored, Result, mean_result, references_signature

NOT_CONFIGURED = "no checkpoint is configured (evaluate.comet is null in params.yaml)"
BATCH_SIZE = 16


def comet(batch: Batch) -> Result | NotScored:
    if batch.comet is None:
        return NotScored(NOT_CONFIGURED)
    model = load(batch.comet, batch.comet_encoder)
    owners: list[int] = []
    segments: list[dict[str, str]] = []
    for number, (row, output) in enumerate(zip(batch.rows, batch.outputs, strict=True)):
        for reference in dict.fromkeys(batch.references[number]):
            owners.append(number)
            segments.append({"src": str(row["source"]), "mt": output, "ref": reference})
    values = _predict(model, segments)
    best = [float("-inf")] * len(batch.rows)
    for owner, value in zip(owners, values, strict=True):
        best[owner] = max(best[owner], 100.0 * value)
    return mean_result(best, _signature(batch))


def _predict(model: Any, segments: list[dict[str, str]]) -> list[float]:
    import torch

    gpus = int(torch.cuda.is_available())
    prediction = model.predict(
        segments, batch_size=BATCH_SIZE, gpus=gpus, progress_bar=False, num_workers=0
    )
    return [float(value) for value in prediction.scores]


def _signature(batch: Batch) -> str:
    from importlib.metadata import version

    name = Path(str(batch.comet)).name if Path(str(batch.comet)).exists() else batch.comet
    return (
        f"{references_signature(batch)}|max over references|model:{name}|"
        f"unbabel-comet:{version('unbabel-comet')}"
    )


@lru_cache(maxsize=1)
def load(checkpoint: str, encoder: str | None) -> Any:
    """The COMET model of a folder `ROOT/hparams.yaml, ROOT/checkpoints/model.ckpt` or a Hub id.

    The encoder's configuration and tokenizer come from `encoder`, else from `ROOT/encoder`,
    else from the Hub name in `hparams.yaml`.

    Raises:
        UserError: a file is missing, or the Hub cannot be reached.
    """
    root = _folder(checkpoint, "evaluate.comet", None)
    weights = root / "checkpoints" / "model.ckpt"
    hparams_file = root / "hparams.yaml"
    for file in (weights, hparams_file):
        if not file.is_file():
            raise UserError(
                f"evaluate.comet: {file} is missing; a COMET folder holds hparams.yaml and "
                "checkpoints/model.ckpt"
            )
    hparams = yaml.safe_load(hparams_file.read_text(encoding="utf-8"))
    beside = root / "encoder"
    name = encoder or (str(beside) if beside.is_dir() else hparams["pretrained_model"])
    encoder_folder = _folder(name, "evaluate.comet_encoder", ["*.json", "*.model", "*.txt"])
    return _load(weights, hparams, encoder_folder)


def _load(weights: Path, hparams: dict[str, Any], encoder: Path) -> Any:
    from comet.models import str2model

    identifier = hparams.get("class_identifier")
    if identifier not in str2model:
        raise UserError(
            f"evaluate.comet: hparams.yaml names class_identifier {identifier!r}; "
            f"known: {', '.join(str2model)}"
        )
    changes = {"pretrained_model": str(encoder)}
    if hparams.get("layer_transformation") == "sparsemax_patch":
        changes["layer_transformation"] = "softmax"  # as unbabel-comet's own loader does
    return str2model[identifier].load_from_checkpoint(
        str(weights),
        map_location="cpu",
        strict=False,
        load_pretrained_weights=False,
        local_files_only=True,
        **changes,
    )


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
        raise UserError(
            f"{parameter}: {name!r} is no local folder and cannot be had from the Hub "
            f"({type(error).__name__}). Download it where the Hub can be reached, put the folder "
            f"here and name it in {parameter}, or set evaluate.comet to null"
        ) from error
