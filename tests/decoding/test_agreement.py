"""Agreement of two models: against a computation token by token."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr

from skd.decoding.agreement import POSITIONS, RANKS, TOP, agreement, judged
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.sequences import TokenExample, collate
from skd.engine.settings import Acceptance, Sampling
from tests.reference import interleaved
from tests.tiny import SIZE, VOCABULARY, build, prompts

STUDENT, TEACHER = build(seed=0), build(seed=1)
EXAMPLES = [
    TokenExample(p, (*r, *r, 1)) for p, r in zip(prompts(6), prompts(6, seed=4), strict=True)
]
BATCH = collate(EXAMPLES, pad_id=0)


def by_hand() -> list[tuple[int, float, float, bool, int]]:
    """Per response token: its place, KL, Spearman, same first token, the teacher's rank."""
    found = []
    for example in EXAMPLES:
        tokens = torch.tensor([[*example.prompt, *example.response]])
        with torch.no_grad():
            ours, theirs = (m(input_ids=tokens).logits[0, :, 1:] for m in (STUDENT, TEACHER))
        for place, token in enumerate(example.response):
            at = len(example.prompt) + place - 1
            p, q = theirs[at].softmax(-1), ours[at].softmax(-1)
            best = theirs[at].topk(TOP).indices
            found.append(
                (
                    place,
                    float((p * (p.log() - q.log())).sum()),
                    float(spearmanr(theirs[at][best], ours[at][best]).statistic),
                    bool(ours[at].argmax() == theirs[at].argmax()),
                    int((theirs[at] > theirs[at][token - 1]).sum()),
                )
            )
    return found


@pytest.mark.parametrize("at_once", [None, 7])
@pytest.mark.parametrize("batches", [[BATCH], [BATCH.take([0, 1]), BATCH.take([2, 3, 4, 5])]])
def test_it_equals_the_computation_by_hand(batches, at_once, monkeypatch) -> None:
    places, kls, correlations, same, ranks = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*by_hand(), strict=True)
    )
    if at_once is not None:  # tokens whose logits are held at once
        monkeypatch.setattr("skd.decoding.agreement.tokens_at_once", lambda *_: at_once)
    made = agreement(STUDENT, TEACHER, batches, VOCABULARY, ks=(1, 5))
    assert made.kl == pytest.approx(kls.mean().item(), rel=1e-6)
    assert made.spearman == pytest.approx(correlations.mean().item(), rel=1e-6)
    assert made.first == pytest.approx(100 * same.mean().item())
    assert made.ranks["0.5"] == pytest.approx(ranks.quantile(0.5).item())
    assert made.within == pytest.approx(
        {str(k): 100 * (ranks < k).double().mean().item() for k in (1, 5)}
    )
    early = places < 8
    assert made.by_position["0"] == pytest.approx(
        (kls[early].mean().item(), 100 * (ranks[early] < 5).double().mean().item()), rel=1e-6
    )


def test_a_model_agrees_with_itself() -> None:
    made = agreement(TEACHER, TEACHER, [BATCH], VOCABULARY, ks=(SIZE,))
    assert made.kl == pytest.approx(0.0, abs=1e-12)
    assert made.spearman == pytest.approx(1.0)
    assert made.first == made.within[str(SIZE)] == 100.0


def test_proposals_are_counted_by_rank_and_by_place() -> None:
    """Against Algorithm 1 token by token, which knows the rank of each proposal and its fate."""
    asked, length, rule = prompts(6, seed=7), 12, Acceptance("top_k", 3)
    noise = uniform_noise(6, length, torch.Generator().manual_seed(1))
    interleaving = Interleaving(TEACHER, rule, Sampling())
    rollouts = [
        sample(STUDENT, asked[part], VOCABULARY, Sampling(), length, noise[:, part], interleaving)
        for part in (slice(0, 2), slice(2, 6))
    ]
    made = judged(rollouts)
    seen = [
        (place, rank, replaced)
        for i, prompt in enumerate(asked)
        for told in [
            interleaved(
                STUDENT, TEACHER, prompt, VOCABULARY, Sampling(), Sampling(), rule, length,
                noise[:, i],
            )
        ]
        for place, (rank, replaced) in enumerate(zip(told.ranks, told.replaced, strict=True))
    ]  # fmt: skip

    def bucket(starts: tuple[int, ...], value: int) -> str:
        return str(max(start for start in starts if start <= value))

    ranks = [bucket(RANKS, rank) for _, rank, _ in seen]
    assert made.ranks == pytest.approx(
        {str(s): 100 * ranks.count(str(s)) / len(seen) for s in RANKS}
    )
    places: dict[str, list[bool]] = {}
    for place, _, replaced in seen:
        places.setdefault(bucket(POSITIONS, place), []).append(not replaced)
    assert made.by_position == pytest.approx(
        {place: 100 * sum(kept) / len(kept) for place, kept in places.items()}
    )
