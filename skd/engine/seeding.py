"""Every random number of a run is a function of a key such as (seed, "rollout", step).

Nothing here or elsewhere keeps a random state between steps, so a resumed run draws
the numbers of an uninterrupted one without any state to restore, and every rank of a
distributed run draws the same coin.
"""

from __future__ import annotations

import hashlib

import torch


def derive(*key: object) -> int:
    """A 63-bit seed from any printable key."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*key: object) -> torch.Generator:
    """A CPU generator of its own for this key."""
    return torch.Generator().manual_seed(derive(*key))


def seed_dropout(device: torch.device, *key: object) -> None:
    """Set what dropout draws from: the one place that has no generator of its own.

    `torch.manual_seed` would set up a call for every kind of accelerator, each step.
    """
    seed = derive(*key, "dropout")
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
