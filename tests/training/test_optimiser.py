"""Master copies, 8-bit moments and recomputed activations beside the plain way."""

from __future__ import annotations

import copy

import pytest
import torch

from skd.engine.sequences import TokenExample, collate
from skd.engine.states import batch_states
from skd.training.adamw_8bit import BLOCK, AdamW8bit, decode, encode
from skd.training.chunks import Predictions
from skd.training.losses import Terms, response_loss
from skd.training.methods import DIVERGENCE
from skd.training.optimiser import Trained
from skd.training.settings import Divergence, Optimisation
from tests.tiny import SIZE, build, prompts

EXAMPLES = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(8), prompts(8, seed=5), strict=True)]
BATCH = collate(EXAMPLES, 0)
PLAIN = Optimisation(steps=1, batch_size=1, learning_rate=1e-3)


def loss(student, teacher) -> torch.Tensor:
    """Forward KL over the response tokens."""
    with torch.no_grad():
        taught = batch_states(teacher, BATCH)[BATCH.predictors]
    states = batch_states(student, BATCH)[BATCH.predictors]
    terms = Terms(DIVERGENCE, Divergence(), BATCH.targets)
    return response_loss(terms, Predictions(student, states), Predictions(teacher, taught), SIZE)[0]


def gradient(model) -> torch.Tensor:
    return torch.cat([p.grad.double().flatten() for p in model.parameters()])


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_loss_and_gradients_in_bf16_are_those_of_fp32_within_five_percent(family) -> None:
    shape = {"initializer_range": 0.1}  # at 0.6 half a bit decides what is attended to
    teacher = build(family, seed=3, dtype=torch.float32, **shape)
    full = build(family, seed=1, dtype=torch.bfloat16, **shape).float()  # of the same weights
    half = copy.deepcopy(full).bfloat16()
    losses = [loss(model, teacher) for model in (full, half)]
    for each in losses:
        each.backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    assert (gradient(half) - gradient(full)).norm() <= 0.05 * gradient(full).norm()


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_recomputed_activations_change_nothing(family) -> None:
    teacher = build(family, seed=3)
    kept, made_again = build(family, seed=1).train(), build(family, seed=1).train()
    made_again.gradient_checkpointing_enable({"use_reentrant": False})
    losses = [loss(model, teacher) for model in (kept, made_again)]
    for each in losses:
        each.backward()
    assert losses[0].item() == losses[1].item()
    assert torch.equal(gradient(kept), gradient(made_again))


@pytest.mark.parametrize("optimiser", ["adamw", "adamw_8bit"])
def test_master_copies_take_steps_that_bf16_would_lose(optimiser) -> None:
    """A change of 1e-4 of a weight is below what bf16 can add, and twenty of them are not."""
    settings = Optimisation(1, 1, 1e-4, weights="bfloat16", optimiser=optimiser)
    model = torch.nn.Linear(BLOCK, 2, bias=False, dtype=torch.bfloat16)
    torch.nn.init.ones_(model.weight)
    trained = Trained(model, settings)
    for step in range(60):
        model.weight.grad = torch.ones_like(model.weight)
        trained.step(1e-4)
        assert model.weight.grad is None
        assert torch.equal(model.weight, trained.full["weight"].bfloat16())
        if step == 0:
            assert torch.all(model.weight == 1.0)
    assert torch.allclose(trained.full["weight"], torch.tensor(1 - 60e-4), atol=1e-4)
    assert torch.all(model.weight < 1.0)


def test_weights_in_fp32_are_their_own_master_copies() -> None:
    model = build(dtype=torch.float32)
    trained = Trained(model, PLAIN)
    assert all(trained.full[name] is held for name, held in trained.held.items())
    assert trained.held.keys() == dict(model.named_parameters()).keys()


def test_what_is_frozen_is_neither_changed_nor_remembered() -> None:
    model = build(dtype=torch.float32)
    model.model.requires_grad_(False)
    trained = Trained(model, PLAIN)
    assert trained.held.keys() == {"lm_head.weight"}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("shape", "off"), [((16, BLOCK), 0.02), ((37, 100), 0.15)])
def test_eight_bits_go_where_adamw_goes(shape, off, decay) -> None:
    """Of 20 steps' way this much is off at most. Rows' gradients differ by six powers of ten, and a
    fifth are zero: where a block is of one row, and where it mixes them.
    """
    source = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=source)
    sizes = 10.0 ** torch.randint(-6, 1, (shape[0], 1), generator=source)
    ways = []
    for kind in (torch.optim.AdamW, AdamW8bit):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], lr=1e-2, weight_decay=decay)
        source = torch.Generator().manual_seed(1)
        for _ in range(20):
            drawn = torch.randn(shape, generator=source) + 0.5
            weight.grad = drawn * sizes * (torch.rand(shape, generator=source) < 0.8)
            optimizer.step()
        ways.append(weight.detach() - start)
    exact, coarse = ways
    assert (coarse - exact).norm() <= off * exact.norm()


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_the_nearest_and_keep_ends_and_zero(signed) -> None:
    levels = decode(torch.arange(256, dtype=torch.uint8)[None], torch.ones(1), signed)
    assert levels.unique().numel() == 256
    assert torch.equal(encode(levels, signed)[0][0], torch.arange(256, dtype=torch.uint8))
    drawn = torch.randn(4, BLOCK, generator=torch.Generator().manual_seed(0))
    drawn = drawn if signed else drawn.abs()
    codes, scales = encode(drawn, signed)
    off = (drawn[..., None] - scales[:, None, None] * levels[0]).abs()
    assert torch.allclose((drawn - decode(codes, scales, signed)).abs(), off.amin(-1), atol=1e-6)
    zeros = torch.zeros(2, BLOCK)
    assert torch.equal(decode(*encode(zeros, signed), signed), zeros)
