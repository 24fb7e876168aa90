"""Uploads a task's best student with its model card to the Hub.

All files are checked and shown before the network is reached for. A new repository is private
unless asked otherwise. The token is taken from the environment alone, HF_TOKEN. Trains nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
import yaml
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError, safe_open

from pipelines.runs.folders import BEST
from pipelines.stages.command import run_command
from skd.errors import UserError
from skd.report.sections.cards import for_the_hub

TOKEN = "HF_TOKEN"  # noqa: S105 (the variable's name)
CARD = "README.md"
WANTED = ("config.json", "tokenizer_config.json", CARD)
# Of what `transformers` writes; a folder that holds anything else is no student of ours
ENDINGS = frozenset({".json", ".safetensors", ".jinja", ".txt", ".model", ".spm", ".md"})


@dataclass(frozen=True)
class Upload:
    # owner/name
    name: str
    folder: Path
    # As it is to stand on the Hub
    card: str
    public: bool = False

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


def best_folder(task: str | None, best: Path = BEST) -> Path:
    """The folder of a task's best student. Raises `UserError` for one that is not there."""
    folders = sorted(path.parent for path in best.glob("*/config.json"))
    if not folders:
        raise UserError(f"{best} holds no student; run `dvc repro export` to choose them")
    if task is None and len(folders) == 1:
        return folders[0]
    if best / str(task) in folders:
        return best / str(task)
    known = ", ".join(folder.name for folder in folders)
    raise UserError(f"say which task's student is meant, TASK=… or --task: {known} (got {task!r})")


# ------------------------------------------------------------------------- checks
def check(upload: Upload) -> None:
    """Raise `UserError` with all that speaks against the upload."""
    if complaints := list(_complaints(upload)):
        raise UserError("\n".join(f"{upload.folder}: {line}" for line in complaints))


def _complaints(upload: Upload) -> Iterator[str]:
    yield from _name(upload.name)
    names = {str(path.relative_to(upload.folder)) for path in upload.files}
    for name in WANTED:
        if name not in names:
            yield f"{name} is missing"
    for path in upload.files:
        if path.suffix not in ENDINGS:
            yield f"{path.name} is no file of a student ({', '.join(sorted(ENDINGS))})"
    yield from _weights(upload)
    yield from _places(upload)
    yield from _card(upload)


def _name(name: str) -> Iterator[str]:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        yield f"NAME: {error}"
    if name.count("/") != 1:
        yield f"NAME: {name!r} must be owner/name"


def _weights(upload: Upload) -> Iterator[str]:
    """Whether the weights are whole: each shard that is named is there and can be read."""
    named = {"model.safetensors"}
    index = upload.folder / "model.safetensors.index.json"
    if index.exists():
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    for name in sorted(named):
        try:
            with safe_open(upload.folder / name, "np") as weights:
                weights.keys()
        except (OSError, SafetensorError) as error:
            yield f"{name} cannot be read: {error}"


def _places(upload: Upload) -> Iterator[str]:
    """Whether a text names a place on this machine, which concerns nobody else."""
    private = {str(Path.home()), str(Path.cwd())} - {"/"}
    texts = {path.name: path for path in upload.files if path.suffix in {".json", ".jinja"}}
    for name, path in texts.items():
        if any(place in path.read_text(encoding="utf-8") for place in private):
            yield f"{name} names a folder of this machine"


def _card(upload: Upload) -> Iterator[str]:
    try:
        card = ModelCard(upload.card)
    except (yaml.YAMLError, ValueError) as error:
        yield f"{CARD}: its front matter cannot be read: {error}"
        return
    if upload.public and card.data.to_dict().get("license", "unknown") == "unknown":
        yield f"{CARD} states no licence, so the student must stay private (leave out --public)"


# ------------------------------------------------------------------------- the upload
def shown(upload: Upload) -> str:
    """The files with their sizes, and the card."""
    sizes = {
        str(path.relative_to(upload.folder)): path.stat().st_size
        for path in upload.files
        if path.name != CARD
    } | {CARD: len(upload.card.encode())}
    lines = [f"{size:>15,}  {name}" for name, size in sorted(sizes.items())]
    total = f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files of {upload.folder}"
    access = "public" if upload.public else "private"
    return "\n".join([*lines, total, f"\n{upload.card}", f"to {upload.name}, {access}"])


def push(upload: Upload, api: HfApi) -> str:
    """Upload as one commit; gives its address. Raises `UserError` where the Hub refuses."""
    try:
        api.create_repo(upload.name, private=not upload.public, exist_ok=True)
        if not upload.public and not api.model_info(upload.name).private:
            raise UserError(f"{upload.name} is public already; say --public or choose another")
        operations = [
            CommitOperationAdd(
                str(path.relative_to(upload.folder)),
                upload.card.encode() if path.name == CARD else path,
            )
            for path in upload.files
        ]
        done = api.create_commit(
            upload.name, operations, commit_message=f"The student of {upload.folder.name}"
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, requests.RequestException) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the Hub does not take {upload.name}: {reason}") from error
    return str(done.commit_url)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.push", description=__doc__)
    parser.add_argument("name", help="owner/name of the repository on the Hub")
    parser.add_argument("--task", help="whose student; needed where there are several")
    parser.add_argument("--public", action="store_true", help="let everyone read it")
    parser.add_argument("--dry-run", action="store_true", help="check and show, without network")
    given = parser.parse_args(argv)
    folder = best_folder(given.task)
    card = folder / CARD
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    upload = Upload(given.name, folder, for_the_hub(text, given.name), given.public)
    check(upload)
    print(shown(upload))
    if given.dry_run:
        print("dry run: nothing was uploaded")
        return
    token = os.environ.get(TOKEN)
    if not token:
        raise UserError(f"set {TOKEN} to a token that may write, or say --dry-run")
    print(push(upload, HfApi(token=token)))


if __name__ == "__main__":
    run_command(main)
