"""Short two-person dialogues in DialogSum's style, each with 5 to 44 valid summaries.

A scene says what one person asks of the other, when, and how it ends. Its summaries are the
product of sentence frames and optional closing clauses. Who opens the conversation and who
asks are drawn apart, so the names must be read, not guessed. This module knows no prompt
and no tokens; the scenes themselves are in `skd.data.generators.scenes`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from skd.data.generators.example import Example, from_weighted, pick
from skd.data.generators.scenes import (
    DAYS,
    GREETINGS,
    MEETING,
    OPENERS,
    PERSONS,
    PLACES,
    SCENES,
    Scene,
)


def generate(n: int, rng: random.Random) -> Iterator[Example]:
    """Yield `n` dialogues; the references are every frame with every clause."""
    for _ in range(n):
        scene = pick(rng, SCENES)
        dialogue, details = _play(scene, rng)
        yield from_weighted(dialogue, _summaries(scene, details), rng)


def pretrain(n: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield `n` dialogues with their slot lists: who asks, what, when, how it ends."""
    for _ in range(n):
        scene = pick(rng, SCENES)
        dialogue, details = _play(scene, rng)
        slots = (scene.kind, details["a"], details["x"], details["d"], scene.ending)
        extra = details["p"] if scene.clauses is MEETING else details["told"]
        yield dialogue, " | ".join((*slots, extra) if extra else slots)


def _play(scene: Scene, rng: random.Random) -> tuple[str, dict[str, str]]:
    first, second = PERSONS
    opened_by_other = rng.random() < 0.5
    asker, replier = (second, first) if opened_by_other else (first, second)
    said, told = pick(rng, scene.reasons)
    details = {
        "a": asker,
        "b": replier,
        "x": pick(rng, scene.matters),
        "d": pick(rng, DAYS),
        "p": pick(rng, PLACES),
        "r": said,
        "told": told,
    }
    turns = [pick(rng, OPENERS)] if opened_by_other else []
    turns.append(f"{pick(rng, GREETINGS)} {pick(rng, scene.asks)}".strip())
    turns.append(pick(rng, scene.replies))
    turns.extend(pick(rng, scene.closings))
    lines = [f"{PERSONS[i % 2]}: {turn}" for i, turn in enumerate(turns)]
    return "\n".join(lines).format_map(details), details


def _summaries(scene: Scene, details: dict[str, str]) -> Iterator[tuple[str, float]]:
    clauses = [(text.format_map(details), weight) for text, weight in scene.clauses]
    for frame, frame_weight in scene.frames:
        sentence = frame.format_map(details)
        for clause, clause_weight in clauses:
            yield sentence + clause, frame_weight * clause_weight
