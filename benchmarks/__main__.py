"""Run the measurements and write docs/benchmarks.md, benchmarks/results.json and a figure.

One thread, CPU time, medians of runs that take turns. 10 to 16 minutes by machine; what
each case took stands on the page.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import torch

from benchmarks import accelerator
from benchmarks.cases import CASES, scaling
from benchmarks.setting import ROOT, machine

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"
FIGURE = ROOT / "docs" / "benchmarks-scaling.png"

# key: (what it is, the bar, whether more is better)
BARS: dict[str, tuple[str, float, bool]] = {
    "oracle_fp64_identical": ("rows equal to the token-level reference, fp64, %", 100.0, True),
    "kept_state_loss_rel_error": ("loss from kept states, relative error", 1e-5, False),
    "block_vs_token_b16": ("blocks ÷ token by token, 16 rows", 0.95, False),
    "block_vs_token_b1": ("blocks ÷ token by token, 1 row", 0.80, False),
    "batched_skd_vs_hf_assisted": ("16 rows ÷ assisted generation of one, tokens/s", 4.0, True),
    "skd_step_vs_trl_on_policy": ("SKD step ÷ TRL's on-policy step", 1.5, False),
    "skd_step_vs_own_on_policy": ("SKD step ÷ own on-policy step", 1.9, False),
    "skd_step_vs_plain_design": (
        "SKD step ÷ token-level, fresh teacher, whole logits",
        0.75,
        False,
    ),
    "uncached_vs_skd_step": ("uncached step ÷ SKD step", 10.0, True),
    "own_on_policy_vs_trl_on_policy": ("own ÷ TRL's on-policy step", 0.8, False),
    "fused_vs_naive_time_fkl": ("chunked ÷ naive loss, forward KL, time", 1.0, False),
    "fused_vs_naive_time_jsd": ("chunked ÷ naive loss, JSD, time", 0.6, False),
    "fused_vs_naive_peak_memory": ("chunked ÷ naive loss, extra peak memory", 0.15, False),
    "compaction_vs_idle_rows": ("finished rows dropped ÷ carried along", 0.75, False),
    "speculative_vs_plain_b1": ("plain ÷ speculative greedy decoding, 1 row", 1.2, True),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="repetitions per piece of work")
    parser.add_argument("--only", choices=[*CASES, "scaling"], nargs="+", help="these cases alone")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    began = time.monotonic()
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    found: dict[str, Any] = stored if arguments.only else {}
    for name in arguments.only or [*CASES, "scaling"]:
        started, spent = time.monotonic(), _cpu_seconds()
        print(f"{name} … ", end="", file=sys.stderr, flush=True)
        if name == "scaling":
            found["scaling"] = scaling(min(3, arguments.runs))
        else:
            found |= CASES[name](arguments.runs)
        took = {"wall": round(time.monotonic() - started), "cpu": round(_cpu_seconds() - spent)}
        print(f"{took['wall']} s, CPU {took['cpu']} s", file=sys.stderr, flush=True)
        found.setdefault("seconds", {})[name] = took
        found["machine"] = machine("torch", "transformers", "trl", "numpy")
        _write(found)  # after every case: an interrupted run keeps what it measured
    print(
        f"{PAGE.relative_to(ROOT)} is written after {(time.monotonic() - began) / 60:.1f} minutes"
    )


def _cpu_seconds() -> float:
    """Of this process and the children that ended."""
    return sum(os.times()[:4])


def _write(found: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if "scaling" in found:
        _draw(found["scaling"])
    PAGE.write_text(_page(found), encoding="utf-8")


def _page(found: dict[str, Any]) -> str:
    rows = []
    for key, (title, bar, more) in BARS.items():
        if key not in found:
            continue
        median, runs = found[key]["median"], found[key]["runs"]
        met = median >= bar if more else median <= bar
        spread = f"{min(runs):.3g} … {max(runs):.3g}" if len(runs) > 1 else ""
        sign = "≥" if more else "≤"
        rows.append(
            f"| {title} | **{median:.3g}** | {spread} | {sign} {bar:g} | "
            f"{'yes' if met else '**no**'} | `{key}` |"
        )
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    steps = found.get("skd_step_vs_trl_on_policy", {}).get("setting", {})
    seconds = ", ".join(f"{n} {s} s" for n, s in steps.get("cpu_seconds", {}).items())
    return f"""# Benchmarks

`make bench` writes this page, the figure and [results.json](../benchmarks/results.json), which also
holds every run and setting. One thread, CPU time, fp32; the pieces of work take turns in one
process, and a ratio is the median of the runs' ratios.

{machine}

| what | median | runs | bar | met | key |
|---|--:|--:|--:|---|---|
{chr(10).join(rows)}

Unless the JSON says otherwise: teacher 512 × 8 layers, student 256 × 4, vocabulary 8,192, 16 rows,
prompts of 64 and responses of 128 tokens, random weights, K such that nine proposals in ten are
accepted. CPU seconds of one optimiser step with responses of 64 tokens: {seconds}. TRL's column is
the faster of its two trainers, both on-policy with forward KL and KV cache, gradient checkpointing
off.

{_SCALING if "scaling" in found else ""}
{_costs(found.get("seconds", {}))}
{accelerator.section(ROOT / "benchmarks")}"""


def _costs(seconds: dict[str, dict[str, int]]) -> str:
    """What each case took, so that whoever shortens this knows where the time goes."""
    rows = [f"| {name} | {took['wall']} | {took['cpu']} |" for name, took in seconds.items()]
    wall, cpu = (sum(took[kind] for took in seconds.values()) for kind in ("wall", "cpu"))
    lines = [*rows, f"| all | {wall} | {cpu} |"]
    return "| case | wall s | CPU s |\n|---|--:|--:|\n" + "\n".join(lines) + "\n"


_SCALING = """![CPU milliseconds per emitted token](benchmarks-scaling.png)

Interleaved sampling, teacher 256 × 6, student 128 × 3, 8 rows, responses of 64 tokens, one size
varied at a time; medians of three runs. The figure's numbers are in the JSON under `scaling`.
"""


def _draw(curves: dict[str, list[tuple[float, float]]]) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(3.2 * len(curves), 3), sharey=False)
    for axis, (title, points) in zip(axes, curves.items(), strict=True):
        x, y = zip(*points, strict=True)
        axis.plot(x, y, "o-", color="#0072b2")
        if title != "accepted (%)":
            axis.set_xscale("log", base=2)
            axis.set_xticks(x, [f"{v:,.0f}" for v in x])
        axis.set(xlabel=title, ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("CPU ms per emitted token")
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
