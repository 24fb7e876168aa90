"""The chunked loss against the one written out over whole logits, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from skd.engine.sequences import TokenBatch, TokenExample, collate
from skd.engine.states import batch_states
from skd.training import chunks, losses
from skd.training.chunks import Predictions
from skd.training.losses import Terms, response_loss, token_loss
from skd.training.methods import CROSS_ENTROPY, DIVERGENCE, METHODS, Loss
from skd.training.settings import Divergence
from tests.reference import FORMULAS, written_loss
from tests.tiny import SIZE, VOCABULARY, build, prompts

EXAMPLES = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(8), prompts(8, seed=5), strict=True)]
BATCH = collate(EXAMPLES, 0)
MARKS = torch.rand(BATCH.response_tokens, generator=torch.Generator().manual_seed(0)) < 0.5


def predictions(model, batch: TokenBatch = BATCH) -> Predictions:
    return Predictions(model, batch_states(model, batch)[batch.predictors])


def whole_logits(model, batch: TokenBatch = BATCH) -> torch.Tensor:
    return model(input_ids=batch.tokens, use_cache=False).logits[batch.predictors][:, :SIZE]


NAMES = sorted(FORMULAS)


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_those_of_whole_logits(name, rows, family, monkeypatch) -> None:
    """Tied and soft-capped heads, padded embeddings, chunks of one row and of all."""
    monkeypatch.setitem(chunks.CHUNK_LOGITS, "cpu", rows * SIZE)
    monkeypatch.setitem(losses._BLOCK_LOGITS, "cpu", max(1, rows // 3) * SIZE)
    student, teacher = (
        build(family, seed=s, vocab_size=SIZE + n, tie_word_embeddings=True)
        for s, n in ((1, 3), (2, 9))
    )
    loss, divergence = METHODS["skd_mixed_loss"].loss, Divergence(name, 0.3)
    with torch.no_grad():
        given, taught = predictions(teacher), whole_logits(teacher)
    terms = Terms(loss, divergence, BATCH.targets)
    total, kl = response_loss(terms, predictions(student), given, SIZE)
    (total / 7).backward()
    got = gradients(student)
    wanted = written_loss(loss, divergence, whole_logits(student), taught, BATCH.targets, MARKS)
    (wanted / 7).backward()
    assert total.item() == pytest.approx(wanted.item(), rel=1e-12)
    for parameter, gradient in gradients(student).items():
        assert torch.allclose(got[parameter], gradient, rtol=1e-9, atol=1e-12), parameter
    p, q = taught.softmax(-1), whole_logits(student).softmax(-1)
    assert kl is not None
    assert kl.item() == pytest.approx(FORMULAS["forward_kl"](p, q, 0).sum().item(), rel=1e-9)


LOSSES = {loss for method in METHODS.values() for loss in method.losses}


@pytest.mark.parametrize("loss", [*LOSSES, Loss(0.3, 0.7, cross_entropy_on="replaced")])
def test_every_loss_is_the_weighted_sum_of_its_parts(loss) -> None:
    source = torch.Generator().manual_seed(3)
    shape = (BATCH.response_tokens, SIZE)
    student = torch.randn(*shape, generator=source, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(*shape, generator=source, dtype=torch.float64)
    terms = Terms(loss, Divergence(), BATCH.targets, MARKS)
    values, _, gradient = token_loss(terms, student.detach().clone(), teacher.clone())
    wanted = written_loss(loss, Divergence(), student, teacher, BATCH.targets, MARKS)
    wanted.backward()
    assert values.sum().item() == pytest.approx(wanted.item(), rel=1e-12)
    assert torch.allclose(gradient, student.grad, atol=1e-12)


def test_a_second_backward_pass_is_refused_in_words() -> None:
    terms = Terms(CROSS_ENTROPY, Divergence(), BATCH.targets)
    total, _ = response_loss(terms, predictions(build()), None, SIZE)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="a second backward pass through one loss"):
        total.backward()


def test_states_and_targets_must_be_as_many() -> None:
    terms = Terms(CROSS_ENTROPY, Divergence(), BATCH.targets[1:])
    with pytest.raises(ValueError, match="states predict"):
        response_loss(terms, predictions(build()), None, SIZE)


def test_the_gradient_of_a_biased_head_is_whole() -> None:
    student = build("phi3_sliding")  # its head has a bias in some releases
    size, width = student.lm_head.weight.shape
    student.lm_head = torch.nn.Linear(width, size, bias=True, dtype=torch.float64)
    total, _ = response_loss(
        Terms(CROSS_ENTROPY, Divergence(), BATCH.targets), predictions(student), None, SIZE
    )
    total.backward()
    got = gradients(student)
    cross_entropy(whole_logits(student), BATCH.targets, reduction="sum").backward()
    for parameter, gradient in gradients(student).items():
        assert torch.allclose(got[parameter], gradient, rtol=1e-9, atol=1e-12), parameter


def test_without_a_teacher_there_is_no_divergence_to_log() -> None:
    total, kl = response_loss(
        Terms(CROSS_ENTROPY, Divergence(), BATCH.targets), predictions(build()), None, SIZE
    )
    assert kl is None
    wanted = cross_entropy(whole_logits(build()), BATCH.targets, reduction="sum")
    assert total.item() == pytest.approx(wanted.item(), rel=1e-12)


def test_measuring_makes_no_gradients(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(torch.autograd, "grad", lambda *given: made.append(given))
    with torch.no_grad():
        response_loss(
            Terms(CROSS_ENTROPY, Divergence(), BATCH.targets), predictions(build()), None, SIZE
        )
    assert made == []


@pytest.mark.parametrize("name", NAMES)
def test_a_real_vocabulary_keeps_single_precision_accurate(name) -> None:
    """49,152 tokens: sums of many small terms, where a careless one is off by percents."""
    source = torch.Generator().manual_seed(1)
    student, teacher = (
        3 * torch.randn(2, 4, 49_152, generator=source, dtype=torch.float64)
    ).unbind()
    terms = Terms(DIVERGENCE, Divergence(name), torch.tensor([0, 1, 2, 3]))
    pair = (student.float(), teacher.float())
    exact = token_loss(terms, student, teacher)
    single = token_loss(terms, *pair)
    assert torch.allclose(single[0].double(), exact[0], rtol=1e-4, atol=1e-6)
    assert (single[2] - exact[2]).norm() <= 1e-4 * exact[2].norm()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_models_get_a_single_precision_softmax(name) -> None:
    """bf16 weights or bf16 autocast over fp32 weights: near fp64, and finite."""
    exact = None
    for dtype, cast in ((torch.float64, False), (torch.bfloat16, False), (torch.float32, True)):
        student, teacher = (build(seed=s, dtype=dtype, initializer_range=0.1) for s in (1, 2))
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            terms = Terms(DIVERGENCE, Divergence(name), BATCH.targets)
            total, _ = response_loss(terms, predictions(student), predictions(teacher), SIZE)
        assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
        exact = total.item() if exact is None else exact
        assert total.item() == pytest.approx(exact, rel=0.1)


def test_padded_embeddings_of_different_sizes_compare_on_the_common_vocabulary() -> None:
    """Qwen2's case: one tokenizer, 152064 and 151936 rows. Padding rows change nothing."""
    plain, padded = build(seed=2), build(seed=2, vocab_size=SIZE + 12)
    padded.load_state_dict(
        {
            name: torch.cat([value, 50 + torch.rand(12, 16, dtype=torch.float64)])
            if value.shape[0] == SIZE
            else value
            for name, value in plain.state_dict().items()
        }
    )
    student = predictions(build(seed=1, vocab_size=SIZE + 3))
    terms = Terms(DIVERGENCE, Divergence(), BATCH.targets)
    values = [
        response_loss(terms, student, predictions(teacher), VOCABULARY.size)[0].item()
        for teacher in (plain, padded)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_padding_of_a_batch_does_not_change_its_loss() -> None:
    model, examples = (
        build(),
        [TokenExample((3, 4, 5), (6, 1)), TokenExample((7,), (8, 9, 10, 11, 1))],
    )

    def total(rows: list[TokenExample]) -> float:
        batch = collate(rows, pad_id=0)
        made = predictions(model, batch)
        loss, _ = response_loss(Terms(CROSS_ENTROPY, Divergence(), batch.targets), made, None, SIZE)
        return loss.item()

    assert total(examples) == pytest.approx(sum(total([e]) for e in examples), rel=1e-12)
