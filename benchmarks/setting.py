"""The models, prompts and clocks that all measurements share.

Random weights: what is measured is work, not quality. K is chosen so that the teacher
accepts about nine proposals in ten, as it does for a trained pair.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from skd.engine.meter import Stopwatch
from skd.engine.pair import Pair
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.sequences import TokenExample, Vocabulary
from skd.engine.settings import Acceptance, Sampling
from skd.engine.states import precision
from skd.results.runs import Validation
from skd.training.methods import METHODS, ResponseSource
from skd.training.optimiser import Trained
from skd.training.run import TrainingRun
from skd.training.settings import Distill, MethodSettings, Optimisation
from skd.training.step import prepare_steps, update

ROOT = Path(__file__).resolve().parent.parent
PLAIN = Sampling()
ACCEPTED = 0.9


@dataclass(frozen=True)
class Setting:
    teacher: tuple[int, int] = (512, 8)  # hidden size, layers
    student: tuple[int, int] = (256, 4)
    vocabulary: int = 8192
    batch: int = 16
    prompt: int = 64
    response: int = 128

    @property
    def shared(self) -> Vocabulary:
        return Vocabulary(size=self.vocabulary, eos=(1,), pad=0, forbidden=(0,))

    def facts(self, **more: Any) -> dict[str, Any]:
        return asdict(self) | more


CPU = torch.device("cpu")


def model(
    shape: tuple[int, int],
    vocabulary: int,
    seed: int,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    hidden, layers = shape
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 16 * 16,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with device:
        return LlamaForCausalLM(config).eval().to(dtype)


@dataclass(frozen=True)
class BenchmarkPair:
    setting: Setting
    student: PreTrainedModel
    teacher: PreTrainedModel
    k: int

    def sample(self, *, rows: int | None = None, gamma: Any = "auto") -> Any:
        """One rollout by the product's sampler."""
        setting = self.setting
        count = rows or setting.batch
        with precision(self.student):
            return sample(
                self.student,
                prompts(setting)[:count],
                setting.shared,
                PLAIN,
                setting.response,
                noise(setting)[:, :count],
                Interleaving(self.teacher, Acceptance("top_k", self.k), PLAIN),
                gamma,
            )


def pair(setting: Setting, accepted: float = ACCEPTED, device: torch.device = CPU) -> BenchmarkPair:
    """On an accelerator as in the product: a student in fp32, a teacher in bf16."""
    low = torch.float32 if device.type == "cpu" else torch.bfloat16
    student = model(setting.student, setting.vocabulary, 1, device)
    teacher = model(setting.teacher, setting.vocabulary, 2, device, low).requires_grad_(False)
    everything = BenchmarkPair(setting, student, teacher, setting.vocabulary)
    rollout = everything.sample(rows=min(8, setting.batch))
    ranks = rollout.ranks[rollout.batch.response_mask].float()
    return BenchmarkPair(setting, student, teacher, max(1, int(ranks.quantile(accepted)) + 1))


def prompts(setting: Setting) -> list[tuple[int, ...]]:
    source = torch.Generator().manual_seed(0)
    shape = (setting.batch, setting.prompt)
    return [
        tuple(row) for row in torch.randint(3, setting.vocabulary, shape, generator=source).tolist()
    ]


def noise(setting: Setting) -> torch.Tensor:
    return uniform_noise(setting.batch, setting.response, torch.Generator().manual_seed(0))


def own_step(pair: BenchmarkPair, method: str, gamma: Any = "auto") -> Callable[[], None]:
    """One optimiser step of the product's loop: responses, loss, gradient, update."""
    setting = pair.setting
    optimisation = Optimisation(steps=1000, batch_size=setting.batch, learning_rate=1e-6)
    examples = [TokenExample(prompt, (5,) * setting.response) for prompt in prompts(setting)]
    teacher = pair.teacher if METHODS[method].needs_teacher else None
    run = TrainingRun(
        settings=MethodSettings(method, acceptance=Acceptance("top_k", pair.k)),
        distill=Distill(optimisation, PLAIN, PLAIN, block_size=gamma),
        pair=Pair(pair.student, teacher, setting.shared),
        known={ResponseSource.GROUND_TRUTH: examples},
        max_new_tokens=setting.response,
        seed=0,
        validate=lambda _: Validation(metric=0.0),
        scratch=Path(),
    )
    trained = Trained(pair.student, optimisation)

    def step() -> None:
        pair.student.train()
        first = next(prepare_steps(run, 0))
        update(
            run,
            0,
            first.batch,
            first.batch.response_tokens,
            trained,
            1e-6,
            Stopwatch(pair.student.device),
        )

    return step


def interleaved(
    works: Mapping[str, Callable[[], object]], runs: int, warm: bool = True
) -> dict[str, list[float]]:
    """CPU seconds of each piece of work, the pieces taking turns, so that all see one machine."""
    if warm:
        for work in works.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            began = time.process_time()
            told = work()
            # A peer that times its own part of a call tells the seconds.
            seconds[name].append(told if isinstance(told, float) else time.process_time() - began)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    runs = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(runs), "runs": [round(r, 4) for r in runs]}


def machine(*packages: str) -> dict[str, str]:
    cpu = platform.processor() or platform.machine()
    lines = Path("/proc/cpuinfo")
    if lines.exists():
        models = [x for x in lines.read_text().splitlines() if x.startswith("model name")]
        cpu = models[0].split(":", 1)[1].strip() if models else cpu
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
    }
