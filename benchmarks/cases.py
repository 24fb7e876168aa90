"""One function per measurement: what is compared, at which size, and the ratio's key.

A case gives {key: {"median", "runs", "setting"}}; keys and bars are those of `BARS`.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel

from benchmarks import naive
from benchmarks.setting import (
    ACCEPTED,
    CPU,
    PLAIN,
    Setting,
    interleaved,
    model,
    noise,
    own_step,
    pair,
    prompts,
    ratio,
)
from skd.decoding.assisted import assist
from skd.decoding.speculative import speculate
from skd.engine import rollout as rollout_module
from skd.engine.meter import peak_memory, reset_peak_memory
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.sequences import Vocabulary
from skd.engine.settings import Acceptance, Sampling
from skd.engine.states import batch_states
from skd.models.layers import keep_layers
from skd.training.chunks import Predictions
from skd.training.losses import Terms, response_loss
from skd.training.methods import DIVERGENCE
from skd.training.settings import Divergence
from tests.reference import interleaved as token_level
from tests.tiny import SIZE, VOCABULARY, build
from tests.tiny import prompts as ragged

Found = dict[str, dict[str, Any]]
DEFAULT = Setting()
SMALL = Setting(teacher=(256, 6), student=(128, 3))
GREEDY = Sampling(temperature=0.0)


def oracle(runs: int) -> Found:
    """Share of rows that equal Algorithm 1 as written, over γ, seeds and ragged prompts."""
    same, total = equal_rows(runs, (1, 2, 3, 5, 8, 16, "auto"), Sampling(0.8, 0.95))
    return {
        "oracle_fp64_identical": _single(
            100 * same / total, {"rows": total, "vocabulary": SIZE, "dtype": "fp64"}
        )
    }


def equal_rows(
    seeds: int, gammas: Sequence[Any], sampling: Sampling, device: torch.device = CPU
) -> tuple[int, int]:
    """Rows sampled on the device that equal the reference's on a CPU, and all rows; in fp64."""
    same, total = 0, 0
    rule, length = Acceptance("top_k", 3), 24
    for seed in range(seeds):
        student, teacher = build(seed=2 * seed), build(seed=2 * seed + 1)
        rows = ragged(8, seed)
        uniforms = uniform_noise(8, length, torch.Generator().manual_seed(seed))
        wanted = [
            token_level(
                student, teacher, row, VOCABULARY, sampling, sampling, rule, length, uniforms[:, i]
            ).response
            for i, row in enumerate(rows)
        ]  # once a seed: γ must not matter
        student.to(device)
        part = Interleaving(teacher.to(device), rule, sampling)
        for gamma in gammas:
            asked = (rows, VOCABULARY, sampling, length, uniforms, part, gamma)
            made = sample(student, *asked).batch.to(CPU)
            for i, response in enumerate(wanted):
                start, stop = int(made.prompt_lengths[i]), int(made.lengths[i])
                same += made.tokens[i, start:stop].tolist() == response
                total += 1
    return same, total


def kept_states(runs: int) -> Found:
    """Loss from the states kept while verifying, against a fresh teacher forward, in fp32."""
    setting = replace(DEFAULT, batch=8, response=64)
    made = pair(setting)
    batch = made.sample().batch
    assert batch.teacher_states is not None
    with torch.no_grad():
        fresh = batch_states(made.teacher, batch)
        student = Predictions(made.student, batch_states(made.student, batch)[batch.predictors])
        losses = [
            response_loss(
                Terms(DIVERGENCE, Divergence(), batch.targets),
                student,
                Predictions(made.teacher, states[batch.predictors]),
                setting.vocabulary,
            )[0].item()
            for states in (batch.teacher_states, fresh)
        ]
    error = abs(losses[0] - losses[1]) / losses[1]
    return {"kept_state_loss_rel_error": _single(error, setting.facts(k=made.k))}


def sampler(runs: int) -> Found:
    """Blocks against one token at a time with the same caches."""
    found = {}
    for rows, response in ((16, 64), (1, 128)):
        made = pair(replace(DEFAULT, batch=rows, response=response))
        seconds = interleaved({"block": made.sample, "token": partial(made.sample, gamma=1)}, runs)
        rollout = made.sample()
        share = 100 * rollout.accepted / rollout.batch.response_tokens
        found[f"block_vs_token_b{rows}"] = ratio(seconds["block"], seconds["token"]) | {
            "setting": made.setting.facts(k=made.k, accepted_percent=round(share, 1))
        }
    return found


def assisted(runs: int) -> Found:
    """Tokens per CPU second: a batch of interleaved rows against assisted generation of one."""
    made = pair(DEFAULT)
    asked = (prompts(DEFAULT)[0], DEFAULT.shared, PLAIN, DEFAULT.response)

    def other() -> list[int]:
        torch.manual_seed(0)
        return assist(made.student, made.teacher, *asked)

    counts = {"own": made.sample().batch.response_tokens, "assisted": len(other())}
    works = {"own": made.sample, "assisted": other}
    seconds = interleaved(works, runs, warm=False)  # both ran just now
    speeds = {name: [counts[name] / s for s in values] for name, values in seconds.items()}
    return {
        "batched_skd_vs_hf_assisted": ratio(speeds["own"], speeds["assisted"])
        | {"setting": DEFAULT.facts(k=made.k, unit="tokens per CPU second")}
    }


def steps(runs: int) -> Found:
    """Whole optimiser steps: ours, a plain design, and TRL's two trainers."""
    from benchmarks.peers import distillation_step, gkd_step

    shorter = replace(DEFAULT, response=64)
    made = pair(shorter)
    seconds = interleaved(
        {
            "skd": own_step(made, "skd"),
            "on_policy": own_step(made, "on_policy_kd"),
            "plain": naive.plain_step(made),
            "trl_gkd": gkd_step(made),
            "trl_distillation": distillation_step(made),
        },
        runs,
    )
    faster = min(("trl_gkd", "trl_distillation"), key=lambda n: statistics.median(seconds[n]))
    medians = {name: round(statistics.median(s), 2) for name, s in seconds.items()}
    setting = shorter.facts(k=made.k, cpu_seconds=medians, trl=faster)
    pairs = {
        "skd_step_vs_trl_on_policy": ("skd", faster),
        "skd_step_vs_own_on_policy": ("skd", "on_policy"),
        "skd_step_vs_plain_design": ("skd", "plain"),
        "own_on_policy_vs_trl_on_policy": ("on_policy", faster),
    }
    return {
        key: ratio(seconds[above], seconds[below]) | {"setting": setting}
        for key, (above, below) in pairs.items()
    }


def uncached(runs: int) -> Found:
    """The smaller pair and four rows on both sides: without a cache a step takes long."""
    setting = replace(SMALL, batch=4)
    made = pair(setting)
    works = {"skd": own_step(made, "skd"), "uncached": naive.uncached_step(made)}
    works["skd"]()  # to warm up; the other one is long enough to do so itself
    seconds = interleaved(works, runs, warm=False)
    return {
        "uncached_vs_skd_step": ratio(seconds["uncached"], seconds["skd"])
        | {"setting": setting.facts(k=made.k)}
    }


# ----------------------------------------------------------------------- loss
_LOSS_WIDTH, _LOSS_VOCABULARY = 512, 49_152
_TIMED_ROWS, _WEIGHED_ROWS = 512, 1024


def _loss_works(divergence: str, rows: int) -> dict[str, Callable[[], None]]:
    shape = (_LOSS_WIDTH, 1)
    student, teacher = (model(shape, _LOSS_VOCABULARY, seed) for seed in (1, 2))
    teacher.requires_grad_(False)
    torch.manual_seed(0)
    states, taught = torch.randn(2, rows, _LOSS_WIDTH).unbind()
    targets = torch.zeros(rows, dtype=torch.long)
    whole = {"forward_kl": naive.forward_kl, "jsd": naive.jsd}[divergence]

    def fused() -> None:
        leaf = states.clone().requires_grad_()
        made = Predictions(student, leaf)
        other = Predictions(teacher, taught)
        settings = Divergence(divergence)  # type: ignore[arg-type]
        terms = Terms(DIVERGENCE, settings, targets)
        total, _ = response_loss(terms, made, other, _LOSS_VOCABULARY)
        (total / rows).backward()
        student.zero_grad()

    def plain() -> None:
        leaf = states.clone().requires_grad_()
        with torch.no_grad():
            other = teacher.lm_head(taught)
        (whole(student.lm_head(leaf), other) / rows).backward()
        student.zero_grad()

    return {"fused": fused, "naive": plain}


def loss(runs: int) -> Found:
    """Head, loss and gradient over response tokens of a 49k vocabulary: time, then memory."""
    size = {"width": _LOSS_WIDTH, "vocabulary": _LOSS_VOCABULARY}
    found = {}
    for name, key in (("forward_kl", "fkl"), ("jsd", "jsd")):
        seconds = interleaved(_loss_works(name, _TIMED_ROWS), runs)
        found[f"fused_vs_naive_time_{key}"] = ratio(seconds["fused"], seconds["naive"]) | {
            "setting": size | {"rows": _TIMED_ROWS}
        }
    fresh = min(2, runs)  # processes: their peaks differ by less than a percent
    peaks = {which: [_peak(which) for _ in range(fresh)] for which in ("fused", "naive")}
    found["fused_vs_naive_peak_memory"] = ratio(peaks["fused"], peaks["naive"]) | {
        "setting": size
        | {"rows": _WEIGHED_ROWS}
        | {"MiB": {n: round(statistics.median(p)) for n, p in peaks.items()}}
    }
    return found


def _peak(which: str) -> float:
    """MiB that a fresh process grows by as it does the work once, the head's gradient included."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        work = _loss_works("forward_kl", _WEIGHED_ROWS)[which]
        before = psutil.Process().memory_info().rss / 2**20
        reset_peak_memory(CPU)
        work()
        peak = peak_memory(CPU)
        assert peak is not None, "peaks are read from /proc"
        sender.send(peak - before)

    process = context.Process(target=child)
    process.start()
    grown: float = receiver.recv()
    process.join()
    return grown


# ------------------------------------------------------------- variable length
def compaction(runs: int) -> Found:
    """Rows that end at different lengths: dropped from the caches, or carried along."""
    setting = replace(DEFAULT, batch=16)
    made = pair(setting)
    ends = Vocabulary(setting.vocabulary, tuple(range(1, setting.vocabulary // 40)), 0, (0,))

    def work(below: float) -> Callable[[], None]:
        def go() -> None:
            with _compacting(below):
                sample(
                    made.student,
                    prompts(setting),
                    ends,
                    PLAIN,
                    setting.response,
                    noise(setting),
                    Interleaving(made.teacher, Acceptance("top_k", made.k), PLAIN),
                )

        return go

    seconds = interleaved({"compact": work(0.8), "idle": work(0.0)}, runs)
    return {
        "compaction_vs_idle_rows": ratio(seconds["compact"], seconds["idle"])
        | {"setting": setting.facts(k=made.k, mean_length=40)}
    }


@contextmanager
def _compacting(below: float) -> Iterator[None]:
    before = rollout_module.COMPACT_BELOW["cpu"]
    rollout_module.COMPACT_BELOW["cpu"] = below
    try:
        yield
    finally:
        rollout_module.COMPACT_BELOW["cpu"] = before


# --------------------------------------------------------- speculative decoding
_DRAFT_LAYERS = 2


def _drafting_pair(setting: Setting) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A teacher whose upper layers change little, and a draft of its first ones."""
    teacher = model(setting.teacher, setting.vocabulary, 2)
    with torch.no_grad():
        for layer in teacher.model.layers[_DRAFT_LAYERS:]:
            layer.self_attn.o_proj.weight.mul_(0.06)
            layer.mlp.down_proj.weight.mul_(0.06)
    draft = model(setting.teacher, setting.vocabulary, 2)
    draft.load_state_dict(teacher.state_dict())
    return keep_layers(draft, list(range(_DRAFT_LAYERS))), teacher


def speculative(runs: int) -> Found:
    """Greedy teacher decoding with a draft of its first layers: the same tokens, sooner."""
    setting = replace(DEFAULT, batch=1, teacher=(512, 16))
    draft, teacher = _drafting_pair(setting)
    asked = (prompts(setting), setting.shared, GREEDY, setting.response, noise(setting))

    def plain() -> Any:
        return sample(teacher, *asked)

    def fast() -> Any:
        return speculate(draft, teacher, *asked)

    made = fast()
    if not torch.equal(plain().batch.tokens, made.rollout.batch.tokens):
        raise AssertionError("speculative decoding changed the teacher's output")
    seconds = interleaved({"plain": plain, "fast": fast}, runs, warm=False)  # both ran just now
    return {
        "speculative_vs_plain_b1": ratio(seconds["plain"], seconds["fast"])
        | {
            "setting": setting.facts(
                student="the teacher's first layers",
                draft_layers=_DRAFT_LAYERS,
                acceptance_length=round(made.acceptance_length, 2),
                accepted_percent=round(
                    100 * made.drafts.kept / max(1, made.drafts.kept + made.drafts.blocks), 1
                ),
            )
        }
    }


# --------------------------------------------------------------------- scaling
def scaling(runs: int) -> dict[str, list[tuple[float, float]]]:
    """CPU milliseconds per emitted token against one size at a time."""
    small = replace(SMALL, batch=8, response=64)

    @cache  # the middle of all curves is one point
    def cost(setting: Setting, gamma: Any = "auto", accepted: float = ACCEPTED) -> float:
        made = pair(setting, accepted)
        tokens = made.sample(gamma=gamma).batch.response_tokens
        work = {"it": lambda: made.sample(gamma=gamma)}
        seconds = interleaved(work, runs, warm=False)["it"]  # it was run just now
        return 1000 * statistics.median(seconds) / tokens

    return {
        "batch (rows)": [(n, cost(replace(small, batch=n))) for n in (1, 4, 8, 16, 32)],
        "response length (tokens)": [(n, cost(replace(small, response=n))) for n in (32, 64, 128)],
        "vocabulary (tokens)": [
            (n, cost(replace(small, vocabulary=n))) for n in (1024, 8192, 32_768)
        ],
        "block size γ": [(n, cost(small, gamma=n)) for n in (1, 2, 4, 8)],
        "accepted (%)": [(100 * a, cost(small, accepted=a)) for a in (0.5, 0.7, 0.9)],
    }


def _single(value: float, setting: dict[str, Any]) -> dict[str, Any]:
    if not math.isfinite(value):
        raise AssertionError(f"not a number: {value}")
    return {"median": value, "runs": [value], "setting": setting}


CASES: dict[str, Callable[[int], Found]] = {
    "oracle": oracle,
    "kept_states": kept_states,
    "sampler": sampler,
    "assisted": assisted,
    "steps": steps,
    "uncached": uncached,
    "loss": loss,
    "compaction": compaction,
    "speculative": speculative,
}
