"""The engine on an accelerator: right in bf16, how fast, how much memory, against its own CPU path.

`python -m benchmarks.accelerator` needs one GPU and writes benchmarks/accelerator-<name>.json;
`section` makes of such files what docs/benchmarks.md says of devices. Wall seconds, the device
waited for, medians of runs that take turns. Random weights, as in the other cases.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import naive
from benchmarks.cases import equal_rows
from benchmarks.setting import (
    CPU,
    PLAIN,
    ROOT,
    BenchmarkPair,
    Setting,
    machine,
    model,
    own_step,
    pair,
)
from skd.engine.cache import CachedModel
from skd.engine.meter import wait
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.settings import Acceptance
from skd.engine.states import batch_states, precision
from skd.training import chunks, losses
from skd.training.chunks import Predictions
from skd.training.losses import Terms, response_loss
from skd.training.methods import DIVERGENCE
from skd.training.settings import Divergence
from tests.tiny import FAMILIES, VOCABULARY, build
from tests.tiny import prompts as ragged

# Close to Qwen2.5 1.5B and 0.5B: hidden size, layers; its vocabulary.
REAL = Setting((1536, 28), (896, 24), vocabulary=151_936, batch=16, prompt=128, response=128)


def oracle(device: torch.device) -> dict[str, Any]:
    """Rows equal to Algorithm 1 as written and run on a CPU; fp64 on both."""
    same, total = equal_rows(3, (1, 3, "auto"), PLAIN, device)
    return {"rows": total, "equal": same}


def half_precision(device: torch.device) -> dict[str, Any]:
    """Loss and gradient in bf16 over fp32 weights against fp32 on a CPU, and kept states."""
    small = Setting(batch=8, response=64)
    found: dict[str, Any] = {}
    exact = _loss_and_gradient(pair(small), CPU)
    for name, where in (("fp32", False), ("bf16", True)):
        made = _loss_and_gradient(pair(small), device, half=where)
        found[name] = {
            "loss_relative_error": abs(made[0] - exact[0]) / exact[0],
            "gradient_relative_error": ((made[1] - exact[1]).norm() / exact[1].norm()).item(),
        }
    on_device = pair(small, device=device)
    with torch.no_grad(), precision(on_device.student):
        batch = on_device.sample().batch
        kept, fresh = batch.teacher_states, batch_states(on_device.teacher, batch)
        assert kept is not None
        where = batch.predictors
        error = (kept[where].float() - fresh[where].float()).norm() / fresh[where].float().norm()
    found["bf16"]["kept_states_relative_error"] = error.item()
    return found


def _loss_and_gradient(
    made: BenchmarkPair, device: torch.device, half: bool = False
) -> tuple[float, Tensor]:
    """Of one batch that a CPU sampled."""
    batch = made.sample().batch.to(device)
    made.student.to(device), made.teacher.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        states = batch_states(made.student, batch)[batch.predictors]
        with torch.no_grad():
            taught = batch_states(made.teacher, batch)[batch.predictors]
        total, _ = response_loss(
            Terms(DIVERGENCE, Divergence(), batch.targets),
            Predictions(made.student, states),
            Predictions(made.teacher, taught),
            made.setting.vocabulary,
        )
    (total / batch.response_tokens).backward()
    gradients = [p.grad.flatten().cpu() for p in made.student.parameters() if p.grad is not None]
    return total.item() / batch.response_tokens, torch.cat(gradients)


def against_cpu(device: torch.device, runs: int) -> dict[str, Any]:
    """Seconds of one step of the same small pair: fp32 on all cores, bf16 on the device."""
    made = pair(Setting())
    cpu = _seconds({"skd": own_step(made, "skd"), "on_policy": own_step(made, "on_policy_kd")}, 2)
    moved = pair(Setting(), device=device)
    works = {m: own_step(moved, n) for m, n in (("skd", "skd"), ("on_policy", "on_policy_kd"))}
    there = _seconds(works, runs, device)
    return {
        "setting": made.setting.facts(k=made.k, threads=torch.get_num_threads()),
        "cpu_seconds": cpu,
        "device_seconds": there,
    }


def real_size(device: torch.device, runs: int) -> dict[str, Any]:
    """Optimiser steps of a pair of real size: ours by γ and method, and TRL's two trainers."""
    from benchmarks.peers import distillation_step, gkd_step

    made = pair(REAL, device=device)
    works: dict[str, Callable[[], object]] = {
        "skd": own_step(made, "skd"),
        "skd γ=1": own_step(made, "skd", 1),
        "on_policy_kd": own_step(made, "on_policy_kd"),
        "supervised_kd": own_step(made, "supervised_kd"),
        "trl_gkd": gkd_step(made),
        "trl_distillation": distillation_step(made),
    }
    rollout = made.sample()
    seconds, peaks = _seconds(works, runs, device), {}
    for name, work in works.items():
        base = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        peaks[name] = round((torch.cuda.max_memory_allocated(device) - base) / 2**20)
    return {
        "setting": REAL.facts(k=made.k),
        "parameters": [made.teacher.num_parameters(), made.student.num_parameters()],
        "seconds": seconds,
        "extra_peak_mib": peaks,
        "sampled_tokens": rollout.batch.response_tokens,
        "accepted_percent": 100 * rollout.accepted / rollout.batch.response_tokens,
        "teacher_passes": rollout.cost.teacher_passes,
    }


def chunk_sizes(device: torch.device, runs: int) -> dict[str, Any]:
    """Head, forward KL and gradients of 2,048 tokens, by how many logits are alive at once."""
    setting = replace(REAL, teacher=(1536, 1), student=(896, 1), batch=2)
    made = pair(setting, device=device)
    rows = 2048
    states = torch.randn(rows, 896, device=device, dtype=torch.bfloat16)
    taught = torch.randn(rows, 1536, device=device, dtype=torch.bfloat16)
    targets = torch.zeros(rows, dtype=torch.long, device=device)

    def fused(logits: int) -> Callable[[], None]:
        def work() -> None:
            chunks.CHUNK_LOGITS["cuda"] = losses._BLOCK_LOGITS["cuda"] = logits
            with precision(made.student):
                total, _ = response_loss(
                    Terms(DIVERGENCE, Divergence(), targets),
                    Predictions(made.student, states.clone().requires_grad_()),
                    Predictions(made.teacher, taught),
                    setting.vocabulary,
                )
            (total / rows).backward()
            made.student.zero_grad()

        return work

    def plain() -> None:
        with precision(made.student):
            student = made.student.lm_head(states.clone().requires_grad_()).float()
            with torch.no_grad():
                teacher = made.teacher.lm_head(taught).float()
        (naive.forward_kl(student, teacher) / rows).backward()
        made.student.zero_grad()

    before = chunks.CHUNK_LOGITS["cuda"]
    works = {"naive": plain} | {f"2^{n}": fused(2**n) for n in range(22, 29)}
    seconds, peaks = _seconds(works, runs, device), {}
    for name, work in works.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        base = torch.cuda.memory_allocated(device)
        work()
        peaks[name] = round((torch.cuda.max_memory_allocated(device) - base) / 2**20)
    chunks.CHUNK_LOGITS["cuda"] = losses._BLOCK_LOGITS["cuda"] = before
    return {"rows": rows, "chosen": before, "seconds": seconds, "extra_peak_mib": peaks}


def graphs(device: torch.device, runs: int) -> dict[str, Any]:
    """Passes over one token per row of a decoder of real size: replayed and not."""
    decoder = model(REAL.student, REAL.vocabulary, 1, device, torch.bfloat16)
    rows = REAL.batch
    cached = CachedModel(decoder, rows, REAL.prompt + REAL.response)
    tokens = torch.full((rows, 1), 5, device=device)
    positions = torch.full_like(tokens, REAL.prompt)

    def launched() -> None:
        cached.launched(tokens, positions, REAL.prompt + 1)

    def replayed() -> None:
        cached.states(tokens, positions, REAL.prompt + 1)

    with torch.no_grad():
        works = {"launched": launched, "replayed": replayed}
        _seconds(works, 2, device)  # the second pass captures
        return {"seconds": _seconds(works, 10 * runs, device)}


def families(device: torch.device) -> dict[str, Any]:
    """Every family of the tests in fp64: rows that equal the CPU's."""
    found = {}
    for family in FAMILIES:
        student, teacher = (build(family, seed=s, dtype=torch.float64) for s in (1, 2))
        asked = (ragged(6), VOCABULARY, PLAIN, 24, uniform_noise(6, 24, torch.Generator()))
        part = Interleaving(teacher, Acceptance("top_k", 3), PLAIN)
        wanted = sample(student, *asked, part).batch.tokens
        teacher.to(device)
        made = sample(student.to(device), *asked, part).batch.tokens.cpu()
        equal = wanted.shape == made.shape and (wanted == made).all(1).sum().item()
        found[family] = f"{int(equal)} of {len(wanted)}"
    return found


def waits(device: torch.device) -> dict[str, Any]:
    """How often the host waits for the device in one interleaved rollout, and per emitted token."""
    import warnings

    made = pair(Setting(batch=8), device=device)
    made.sample()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rollout = made.sample()
    torch.cuda.set_sync_debug_mode("default")
    places: dict[str, int] = {}
    for one in caught:
        place = f"{Path(one.filename).name}:{one.lineno}"
        places[place] = places.get(place, 0) + 1
    passes, tokens = rollout.cost.teacher_passes, rollout.batch.response_tokens
    return {"blocks": passes, "tokens": tokens, "waits": len(caught), "where": places}


def _seconds(
    works: Mapping[str, Callable[[], object]], runs: int, device: torch.device = CPU
) -> dict[str, float]:
    """Median wall seconds, the pieces of work taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(runs + 1):  # the first round warms up
        for name, work in works.items():
            wait(device)
            began = time.perf_counter()
            told = work()  # a peer tells the seconds of its own part
            wait(device)
            spent = told if isinstance(told, float) else time.perf_counter() - began
            if turn:
                taken[name].append(spent)
    return {name: statistics.median(values) for name, values in taken.items()}


def section(folder: Path) -> str:
    """What docs/benchmarks.md says of the devices that were measured."""
    files = sorted(folder.glob("accelerator-*.json"))
    return "\n".join(_about(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def _about(found: dict[str, Any]) -> str:
    exact, half, chunk = found["oracle"], found["half_precision"], found["chunks"]
    real, small, one = found["real_size"], found["against_cpu"], found["graphs"]["seconds"]
    waited, setting = found["waits"], real["setting"]
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    families = [f for f, equal in found["families"].items() if equal[0] != equal[-1]]
    steps = [
        f"| {name} | {seconds:.2f} | {real['extra_peak_mib'][name]:,} |"
        for name, seconds in real["seconds"].items()
    ]
    sizes = [
        f"| {name} | {1000 * seconds:.1f} | {chunk['extra_peak_mib'][name]:,} |"
        for name, seconds in chunk["seconds"].items()
    ]
    errors = {
        f"{kind} {what.removesuffix('_relative_error').replace('_', ' ')}": error
        for kind, numbers in half.items()
        for what, error in numbers.items()
    }
    facts = [
        f"fp64: {exact['equal']} of {exact['rows']} rows equal Algorithm 1 as written and run on a "
        f"CPU; by family of models: {'not ' + ', '.join(families) if families else 'all rows'}.",
        "Relative errors against fp32 on a CPU, for kept states against a fresh forward: "
        + ", ".join(f"{name} {error:.1g}" for name, error in errors.items())
        + ".",
        f"A pass over one token per row, {setting['student'][1]} layers of "
        f"{setting['student'][0]}: {1000 * one['launched']:.1f} ms launched kernel by kernel, "
        f"{1000 * one['replayed']:.1f} ms as a CUDA graph.",
        f"The host waits for the device {waited['waits']} times in {waited['blocks']} blocks, "
        f"which emit {waited['tokens']} tokens.",
        f"Teacher 512 × 8, student 256 × 4: a step takes {small['device_seconds']['skd']:.2f} s "
        f"(SKD) and {small['device_seconds']['on_policy']:.2f} s (on-policy) here, "
        f"{small['cpu_seconds']['skd']:.2f} s and {small['cpu_seconds']['on_policy']:.2f} s on the "
        f"{small['setting']['threads']} threads of its machine's CPU.",
    ]
    shape = (
        f"Teacher {setting['teacher'][0]} × {setting['teacher'][1]} layers, student "
        f"{setting['student'][0]} × {setting['student'][1]}, "
        f"{real['parameters'][0] / 1e6:,.0f} and {real['parameters'][1] / 1e6:,.0f} million "
        f"parameters, vocabulary {setting['vocabulary']:,}, {setting['batch']} rows, prompts of "
        f"{setting['prompt']} and responses of {setting['response']} tokens, "
        f"{real['accepted_percent']:.0f} % of the proposals accepted; bf16, the student's weights "
        "fp32, TRL's trainers too:"
    )
    return f"""
## {found["device"]}

`python -m benchmarks.accelerator`; wall seconds, the device waited for, medians. {machine}

{chr(10).join("- " + fact for fact in facts)}

{shape}

| optimiser step | s | MiB above what stays allocated |
|---|--:|--:|
{chr(10).join(steps)}

Head, forward KL and gradients of {chunk["rows"]:,} tokens by how many logits are alive at once
(chosen: 2^{chunk["chosen"].bit_length() - 1}):

| logits | ms | extra MiB |
|---|--:|--:|
{chr(10).join(sizes)}
"""


CASES: dict[str, Callable[[torch.device, int], Any]] = {
    "oracle": lambda device, _: oracle(device),
    "half_precision": lambda device, _: half_precision(device),
    "families": lambda device, _: families(device),
    "graphs": graphs,
    "waits": lambda device, _: waits(device),
    "chunks": chunk_sizes,
    "real_size": real_size,
    "against_cpu": against_cpu,
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="repetitions per piece of work")
    parser.add_argument("--only", choices=CASES, nargs="+", help="these cases alone")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="folder of the JSON")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.exit("error: no CUDA device: these cases measure one; `make bench` needs none")
    device = torch.device("cuda")
    name = torch.cuda.get_device_name(device)
    file = arguments.out / f"accelerator-{name.replace(' ', '-').lower()}.json"
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    found: dict[str, Any] = stored if arguments.only else {}
    found |= {"device": name, "machine": machine("torch", "transformers", "trl")}
    for case in arguments.only or CASES:
        began = time.perf_counter()
        found[case] = CASES[case](device, arguments.runs)
        print(f"{case}: {json.dumps(found[case], ensure_ascii=False)}", flush=True)
        print(f"{case} took {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
