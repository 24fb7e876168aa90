"""A fixed piece of work, timed: how fast a core of this machine is at what stages do.

Products, attention and norms as a step of the default's student has them, on one core.
"""

from __future__ import annotations

import time

_ROUNDS, _PRODUCTS = 7, 20


def fixed_work() -> float:
    """Processor seconds, the least of a few rounds: what else runs hardly matters."""
    import torch  # a second, which who asks for nothing to run does not wait for
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)
    states, inner, outer = (
        torch.randn(shape, generator=generator) for shape in ((16, 90, 64), (64, 176), (176, 64))
    )
    threads, rounds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(_ROUNDS):
            began = time.process_time()
            for _ in range(_PRODUCTS):
                hidden = functional.silu(states @ inner) @ outer
                heads = functional.rms_norm(hidden, (64,)).view(16, 90, 2, 32).transpose(1, 2)
                functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
            rounds.append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    return round(min(rounds), 5)
