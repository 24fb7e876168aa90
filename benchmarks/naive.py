"""What the product avoids, written plainly: no cache, whole logits, a second teacher forward."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from benchmarks.setting import PLAIN, BenchmarkPair, noise, prompts
from skd.engine.logits import distribution, draw, rank
from skd.engine.rollout import Noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.settings import Acceptance


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """[N, V] logits -> Σ KL(teacher ‖ student), as trainers write it."""
    mine, other = log_softmax(student, -1), log_softmax(teacher, -1)
    return kl_div(mine, other, reduction="none", log_target=True).sum()


def jsd(student: Tensor, teacher: Tensor) -> Tensor:
    """GKD's, β = ½."""
    mine, other = log_softmax(student, -1), log_softmax(teacher, -1)
    half = math.log(0.5)
    mixture = torch.logsumexp(torch.stack([mine + half, other + half]), dim=0)
    parts = [kl_div(mixture, x, reduction="none", log_target=True) for x in (other, mine)]
    return (0.5 * parts[0] + 0.5 * parts[1]).sum()


def plain_step(pair: BenchmarkPair) -> Callable[[], None]:
    """Token-level sampling, then both models' whole logits over prompts and padding."""
    setting = pair.setting
    optimizer = torch.optim.AdamW(pair.student.parameters(), lr=1e-6)
    teacher = Interleaving(pair.teacher, Acceptance("top_k", pair.k), PLAIN)

    def step() -> None:
        rollout = sample(
            pair.student,
            prompts(setting),
            setting.shared,
            PLAIN,
            setting.response,
            noise(setting),
            teacher,
            1,
        )
        batch = rollout.batch
        optimizer.zero_grad()
        mask = torch.ones_like(batch.tokens)
        student = pair.student(input_ids=batch.tokens, attention_mask=mask).logits
        with torch.no_grad():
            taught = pair.teacher(input_ids=batch.tokens, attention_mask=mask).logits
        loss = forward_kl(student[batch.predictors], taught[batch.predictors])
        (loss / batch.response_tokens).backward()
        torch.nn.utils.clip_grad_norm_(pair.student.parameters(), 1.0)
        optimizer.step()

    return step


def uncached_step(pair: BenchmarkPair) -> Callable[[], None]:
    """Algorithm 1 as written: each token is two forwards over the whole prefix."""
    setting = pair.setting
    optimizer = torch.optim.AdamW(pair.student.parameters(), lr=1e-6)

    def step() -> None:
        tokens = torch.tensor(prompts(setting))
        uniforms = noise(setting)
        with torch.no_grad():
            for i in range(setting.response):
                own = pair.student(input_ids=tokens, use_cache=False).logits[:, -1]
                token = draw(distribution(own, 1.0, 1.0), uniforms[Noise.STUDENT, :, i])
                other = pair.teacher(input_ids=tokens, use_cache=False).logits[:, -1]
                instead = draw(distribution(other, 1.0, 1.0), uniforms[Noise.TEACHER, :, i])
                token = torch.where(rank(other, token) < pair.k, token, instead)
                tokens = torch.cat([tokens, token[:, None]], 1)
        optimizer.zero_grad()
        where = slice(setting.prompt - 1, -1)
        student = pair.student(input_ids=tokens, use_cache=False).logits[:, where]
        with torch.no_grad():
            taught = pair.teacher(input_ids=tokens, use_cache=False).logits[:, where]
        (forward_kl(student, taught) / student[..., 0].numel()).backward()
        optimizer.step()

    return step
