"""Algorithm 1 as it is written, one row and one token at a time; and the divergences.

`interleaved` is the oracle of `skd.engine.sampling`. It shares `logits.draw` with it (a token is
the inverse CDF at its own uniform) and nothing else that batches, caches or rolls back.
`FORMULAS` and `written_loss` are those of the divergences and the losses, over probabilities:
without closed forms of the gradient and without care for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from skd.engine.logits import draw
from skd.engine.sequences import Vocabulary
from skd.engine.settings import Acceptance, Sampling
from skd.training.methods import Loss
from skd.training.settings import Divergence


@dataclass
class Reference:
    response: list[int]
    replaced: list[bool]
    ranks: list[int]


@torch.no_grad()
def interleaved(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    prompt: tuple[int, ...],
    vocabulary: Vocabulary,
    student_sampling: Sampling,
    teacher_sampling: Sampling,
    acceptance: Acceptance,
    max_new_tokens: int,
    noise: Tensor,  # [3, max_new_tokens]
    start: int = 0,  # how many of an encoder–decoder's prompt ids its decoder begins with
) -> Reference:
    out = Reference([], [], [])
    source = len(prompt) - start if start else 0
    for i in range(max_new_tokens):
        prefix = torch.tensor([[*prompt, *out.response]])
        own = probabilities(raw(student, prefix, vocabulary, source), student_sampling)
        token = int(draw(own[None], noise[0, i : i + 1]))
        replaced, place = False, -1
        if teacher is not None:
            logits = raw(teacher, prefix, vocabulary, source)
            place = int((logits > logits[token]).sum())
            if not accepts(acceptance, token, logits, own, teacher_sampling, noise[2, i]):
                token = substitute(acceptance, logits, own, teacher_sampling, noise[1, i : i + 1])
                replaced = True
        out.response.append(token)
        out.replaced.append(replaced)
        out.ranks.append(place)
        if token in vocabulary.eos:
            break
    return out


def raw(model: PreTrainedModel, prefix: Tensor, vocabulary: Vocabulary, source: int = 0) -> Tensor:
    """[V] what stands behind a prefix, whose first ids an encoder reads if there is a source."""
    if source:
        asked = {"input_ids": prefix[:, :source], "decoder_input_ids": prefix[:, source:]}
    else:
        asked = {"input_ids": prefix}
    made = model(**asked, use_cache=False)
    logits: Tensor = made.logits[0, -1, : vocabulary.size]
    logits[list(vocabulary.forbidden)] = -torch.inf
    return logits


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).to(logits.dtype)
    full = torch.softmax(logits / sampling.temperature, -1)
    ordered = sorted(range(len(full)), key=lambda i: -full[i].item())
    kept, mass = [], 0.0
    for token in ordered:
        if mass >= sampling.top_p:
            break
        kept.append(token)
        mass += full[token].item()
    cut = torch.zeros_like(full)
    cut[kept] = full[kept]
    return cut / cut.sum()


def accepts(
    acceptance: Acceptance,
    token: int,
    logits: Tensor,
    own: Tensor,
    teacher_sampling: Sampling,
    uniform: Tensor,
) -> bool:
    plain = torch.softmax(logits, -1)
    match acceptance.rule:
        case "top_k":
            return int((logits > logits[token]).sum()) < acceptance.value
        case "top_p":
            more_likely = plain[plain > plain[token]].sum()
            return bool(more_likely < acceptance.value)
        case "min_prob":
            return bool(plain[token] >= acceptance.value)
        case "ratio":
            wanted = probabilities(logits, teacher_sampling)
            share = acceptance.value
            return bool(uniform < 1 - share + share * wanted[token] / own[token])
    raise AssertionError(acceptance.rule)


def substitute(
    acceptance: Acceptance, logits: Tensor, own: Tensor, teacher_sampling: Sampling, uniform: Tensor
) -> int:
    if acceptance.replacement == "argmax":
        return int(logits.argmax())
    wanted = probabilities(logits, teacher_sampling)
    if acceptance.rule == "ratio":
        wanted = (wanted - own).clamp_min(0)
    return int(draw(wanted[None], uniform))


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum(-1)


def _jsd(p: Tensor, q: Tensor, beta: float) -> Tensor:
    mixture = beta * p + (1 - beta) * q
    return beta * _kl(p, mixture) + (1 - beta) * _kl(q, mixture)


def _adaptive(p: Tensor, q: Tensor, beta: float) -> Tensor:
    total = []
    for teacher, student in zip(p, q, strict=True):
        order = sorted(range(len(teacher)), key=lambda i: -teacher[i].item())
        mass = [sum(teacher[i].item() for i in order[: n + 1]) for n in range(len(order))]
        head = [i for n, i in enumerate(order) if n == 0 or mass[n] <= beta]
        gaps = (teacher - student).abs().detach()
        share = gaps[head].sum() / gaps.sum() if gaps.sum() > 0 else gaps.sum()
        total.append(share * _kl(teacher, student) + (1 - share) * _kl(student, teacher))
    return torch.stack(total)


def _entropy_aware(p: Tensor, q: Tensor, beta: float) -> Tensor:
    uncertain = -(p * p.log()).sum(-1) > beta
    return _kl(q, p) + uncertain * _kl(p, q)


# The teacher's probabilities [N, V], the student's, β -> [N].
FORMULAS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward_kl": lambda p, q, _: _kl(p, q),
    "reverse_kl": lambda p, q, _: _kl(q, p),
    "jsd": _jsd,
    "skew_kl": lambda p, q, b: _kl(p, b * p + (1 - b) * q),
    "skew_rkl": lambda p, q, b: _kl(q, b * q + (1 - b) * p),
    "total_variation": lambda p, q, _: 0.5 * (p - q).abs().sum(-1),
    "adaptive_kl": _adaptive,
    "entropy_aware": _entropy_aware,
}


def written_loss(
    loss: Loss,
    divergence: Divergence,
    student: Tensor,  # [N, V] logits
    teacher: Tensor,  # [N, V] logits
    targets: Tensor,  # [N]
    marks: Tensor,  # [N] True at tokens that the teacher put in
) -> Tensor:
    """The sum over tokens as the table of methods says it; its gradient is autograd's."""
    total = torch.zeros((), dtype=torch.float64)
    if loss.divergence:
        formula = FORMULAS[loss.fixed or divergence.name]
        values = formula(teacher.softmax(-1), student.softmax(-1), divergence.beta)
        total = total + loss.divergence * (values * _on(loss.divergence_on, marks)).sum()
    if loss.cross_entropy:
        labels = teacher.argmax(-1) if loss.label == "teacher_argmax" else targets
        each = cross_entropy(student, labels, reduction="none")
        total = total + loss.cross_entropy * (each * _on(loss.cross_entropy_on, marks)).sum()
    return total


def _on(tokens: str, replaced: Tensor) -> Tensor:
    return {"all": torch.ones_like(replaced), "replaced": replaced, "kept": ~replaced}[tokens]
