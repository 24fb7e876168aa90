"""The loss across two tokenizers against the one written out over whole probabilities."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import pytest
import torch
from torch.nn.functional import pad

from skd.engine.sequences import TokenExample, Vocabulary, collate
from skd.engine.spans import Mark, Spans
from skd.engine.states import batch_states
from skd.models.alignment import Translator, shared_classes
from skd.training import chunks
from skd.training.chunks import Predictions
from skd.training.cross_tokenizer import Bridge, span_loss, transport
from skd.training.losses import Terms, response_loss
from skd.training.methods import DIVERGENCE
from skd.training.settings import Divergence
from tests.reference import FORMULAS
from tests.tiny import build
from tests.two_tokenizers import large, permuted, small, unigram, with_permuted_rows

TEXTS = ["the cat sat", "on the 🙂 mat", "12 + 30 = 42 hats", "Face: কলম"]
# Where no token is a part of a character
WHOLE = ["the cat sat", "Hugging: on a mat", "12 + 30 = 42 hats"]


def vocabulary(tokenizer) -> Vocabulary:
    return Vocabulary(len(tokenizer), (tokenizer.eos_token_id,), tokenizer.pad_token_id, ())


def example(text: str, tokenizer) -> TokenExample:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return TokenExample(PROMPTS[len(text) % 3], (*ids, tokenizer.eos_token_id))


def model(tokenizer, seed: int):
    made = build(seed=seed, vocab_size=len(tokenizer), eos_token_id=None, tie_word_embeddings=True)
    # Eager attention has a softmax in fp32, which differs with a batch's padding.
    made.config._attn_implementation = "sdpa"
    return made


PROMPTS = (3,), (3, 4), (3, 4, 3)


def bridge(student, teacher, teacher_model, order: torch.Tensor | None = None) -> Bridge:
    """order: the teacher's ids of the student's prompts; None: the same ids."""
    sizes = vocabulary(student), vocabulary(teacher)
    order = torch.arange(5) if order is None else order
    prompts = {prompt: tuple(order[list(prompt)].tolist()) for prompt in PROMPTS}
    between = Translator(student, teacher, sizes[0].eos, sizes[1].eos, prompts)
    classes = shared_classes(student, sizes[0], teacher, sizes[1])
    return Bridge(teacher_model, sizes[1], classes, between.to_teacher)


def compared(student_model, between: Bridge, batch, divergence: Divergence, size: int):
    """Total and KL of a batch that the teacher has read."""
    student = Predictions(student_model, batch_states(student_model, batch)[batch.predictors])
    teacher = Predictions(between.teacher, batch.teacher_states[batch.predictors])
    terms = Terms(DIVERGENCE, divergence, batch.targets)
    return span_loss(terms, student, teacher, Spans.of(batch), between, size)


def gradients(student_model) -> dict[str, torch.Tensor]:
    found = {name: p.grad for name, p in student_model.named_parameters()}
    student_model.zero_grad(set_to_none=True)
    return found


@cache
def pair(kinds: str):
    """Tokenizers and models of a student and a teacher."""
    tokenizers = {
        "small, large": (small(), large()),
        "large, small": (large(), small()),
        "large, unigram": (large(), unigram()),
        "unigram, small": (unigram(), small()),
    }[kinds]
    return *tokenizers, model(tokenizers[0], 1), model(tokenizers[1], 2)


def written(
    student_model, between: Bridge, examples: list[TokenExample], divergence: Divergence, size: int
) -> torch.Tensor:
    """The loss span by span, each row alone, over probabilities."""

    def probabilities(of, own: TokenExample, width: int) -> torch.Tensor:
        ids = torch.tensor([[*own.prompt, *own.response]])
        logits = of(input_ids=ids, use_cache=False).logits[0, :, :width]
        return logits[len(own.prompt) - 1 : -1].softmax(-1)

    formula, classes = FORMULAS[divergence.name], between.classes
    total = torch.zeros((), dtype=torch.float64)
    for own in examples:
        read = between.translate(own)
        ours = probabilities(student_model, own, size)
        with torch.no_grad():
            theirs = probabilities(between.teacher, read.example, between.vocabulary.size)
        start = other_start = 0
        for stop, other_stop in zip(read.student_ends, read.teacher_ends, strict=True):
            token, other = own.response[start], read.example.response[other_start]
            kinds = int(classes.student[token]), int(classes.teacher[other])
            single = stop - start == other_stop - other_start == 1
            if single and kinds[0] == kinds[1] < classes.count:
                p, q = theirs[other_start], ours[start]
                sums = [
                    torch.stack([x[of == kind].sum() for kind in range(classes.count)])
                    for x, of in ((p, classes.teacher), (q, classes.student))
                ]
                known = [x / x.sum() for x in sums]
                total = total + formula(*known, divergence.beta)
                rest = [
                    x[of == classes.count].sort(descending=True).values
                    for x, of in ((p, classes.teacher), (q, classes.student))
                ]
                width = max(map(len, rest))
                a, b = (pad(x, (0, width - len(x))) for x in rest)
                total = total + (a - b).abs().sum()
            else:
                chances = [
                    torch.stack([x[i, ids[i]] for i in range(*bounds)]).prod()
                    for x, ids, bounds in (
                        (theirs, read.example.response, (other_start, other_stop)),
                        (ours, own.response, (start, stop)),
                    )
                ]
                both = [torch.stack([x, 1 - x]) for x in chances]
                total = total + formula(*both, divergence.beta)
            start, other_start = stop, other_stop
    return total


@pytest.mark.parametrize("kinds", ["small, large", "large, small", "large, unigram"])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "total_variation"])
def test_value_and_gradient_are_those_of_the_loss_as_it_is_written(kinds, name) -> None:
    student, teacher, student_model, teacher_model = pair(kinds)
    between = bridge(student, teacher, teacher_model)
    examples = [example(text, student) for text in TEXTS]
    divergence, size = Divergence(name, 0.3), len(student)
    batch, passes, tokens = between.teach(collate(examples, 0), range(len(examples)), 3)
    assert (passes, tokens) == (
        2,
        sum(sum(map(len, vars(between.translate(own).example).values())) for own in examples),
    )
    total, _ = compared(student_model, between, batch, divergence, size)
    (total / 7).backward()
    got = gradients(student_model)
    wanted = written(student_model, between, examples, divergence, size)
    (wanted / 7).backward()
    assert total.item() == pytest.approx(wanted.item(), rel=1e-9)
    for parameter, gradient in gradients(student_model).items():
        assert torch.allclose(got[parameter], gradient, rtol=1e-7, atol=1e-10), parameter


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_the_same_tokens_under_other_ids_give_the_loss_of_one_tokenizer(name) -> None:
    """Values, gradients and KLs, at temperatures too: what is asked does not depend on ids."""
    other, order = permuted(large())
    student_model, teacher_model = model(large(), 1), model(large(), 2)
    divergence = Divergence(name, 0.3, temperature=1.3, teacher_temperature=0.7, veto=0.2)
    plain = collate([example(text, large()) for text in WHOLE], 0)
    student = Predictions(student_model, batch_states(student_model, plain)[plain.predictors])
    with torch.no_grad():
        given = Predictions(teacher_model, batch_states(teacher_model, plain)[plain.predictors])
    terms = Terms(DIVERGENCE, divergence, plain.targets)
    wanted, wanted_kl = response_loss(terms, student, given, len(large()))
    wanted.backward()
    wanted_gradients = gradients(student_model)
    between = bridge(large(), other, with_permuted_rows(teacher_model, order), order)
    batch, _, _ = between.teach(plain, range(len(WHOLE)), 8)
    assert set(batch.marks[batch.response_mask].tolist()) == {Mark.ALIKE}
    total, kl = compared(student_model, between, batch, divergence, len(large()))
    total.backward()
    assert total.item() == pytest.approx(wanted.item(), rel=1e-9)
    assert kl.item() == pytest.approx(wanted_kl.item(), rel=1e-9)
    for parameter, gradient in gradients(student_model).items():
        assert torch.allclose(wanted_gradients[parameter], gradient, rtol=1e-7, atol=1e-11)


def test_a_model_compared_with_itself_under_other_ids_is_at_no_distance() -> None:
    other, order = permuted(large())
    between = bridge(large(), other, with_permuted_rows(model(large(), 1), order), order)
    plain = collate([example(text, large()) for text in WHOLE], 0)
    batch, _, _ = between.teach(plain, range(len(WHOLE)), 8)
    total, kl = compared(model(large(), 1), between, batch, Divergence(), len(large()))
    assert total.item() == pytest.approx(0.0, abs=1e-9)
    assert kl.item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_chunks_micro_batches_and_rows_of_a_pass_change_nothing(rows, monkeypatch) -> None:
    student, teacher, student_model, teacher_model = pair("unigram, small")
    between = bridge(student, teacher, teacher_model)
    plain = collate([example(text, student) for text in TEXTS], 0)
    whole, _, _ = between.teach(plain, range(len(TEXTS)), 8)
    size = len(student)
    wanted, wanted_kl = compared(student_model, between, whole, Divergence(), size)
    monkeypatch.setitem(chunks.CHUNK_LOGITS, "cpu", rows * size)
    parts, _, _ = between.teach(plain, range(len(TEXTS)), rows)
    sums = [
        compared(student_model, between, part, Divergence(), size) for part in parts.split(rows)
    ]
    total, kl = (torch.stack(values).sum().item() for values in zip(*sums, strict=True))
    assert total == pytest.approx(wanted.item(), rel=1e-10)
    assert kl == pytest.approx(wanted_kl.item(), rel=1e-10)


def test_rows_that_are_not_asked_for_stay_without_spans() -> None:
    student, teacher, student_model, teacher_model = pair("small, large")
    between = bridge(student, teacher, teacher_model)
    batch, _, _ = between.teach(collate([example(t, student) for t in TEXTS], 0), [1, 3], 8)
    assert batch.marks[[0, 2]].eq(Mark.NONE).all()
    assert batch.marks[[1, 3]].ne(Mark.NONE).any(-1).all()
    one = batch.take([0])
    total, _ = compared(student_model, between, one, Divergence(), len(student))
    assert total.item() == 0.0


@pytest.mark.parametrize("sizes", [(5, 5), (3, 7), (7, 3), (4, 0)])
def test_transport_is_the_least_cost_of_moving_one_onto_the_other(sizes) -> None:
    """Against all orders of the masses; with noughts where one has fewer."""
    source = torch.Generator().manual_seed(sum(sizes))
    p, q = (torch.rand(1, size, generator=source, dtype=torch.float64) for size in sizes)
    width = max(sizes)
    a, b = (pad(x[0], (0, width - x.shape[-1])).tolist() for x in (p, q))
    least = min(sum(abs(x - y) for x, y in zip(a, order, strict=True)) for order in permutations(b))
    assert transport(p, q).item() == pytest.approx(least)
    assert transport(q, p).item() == pytest.approx(least)
    assert transport(p, p.flip(-1)).item() == 0.0


def test_a_spans_chunks_are_whole_spans() -> None:
    marks = torch.tensor([1, 2, 3, 3, 0, 2, 1, 2, 3])
    spans = Spans(marks, torch.zeros(9))
    for size in range(1, 12):
        chunks = spans.chunks(size)
        assert [i for c in chunks for i in range(c.start, c.stop)] == list(range(9))
        assert all(marks[c.start] != Mark.GOES_ON for c in chunks)
