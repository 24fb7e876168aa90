"""TRL's two distillation trainers, as they are shipped.

TRL is an extra: `make bench` installs it. Each trainer runs one optimiser step per call and
tells the seconds between its own step callbacks, so its set-up is not counted.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from benchmarks.setting import BenchmarkPair, prompts


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Seconds of the last optimiser step, generation included."""

    seconds = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = _now() - self.began


def _now() -> float:
    """CPU seconds; on CUDA wall seconds, once it has done what it was given."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    core = Tokenizer(WordLevel({f"w{i}": i for i in range(size)}, unk_token="w3"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="w0", eos_token="w1")
    tokenizer.padding_side = "left"
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if not loop.last %} {% endif %}{% endfor %}"
    )
    return tokenizer


def gkd_step(pair: BenchmarkPair) -> Callable[[], float]:
    """`trl.experimental.gkd.GKDTrainer`, on-policy (λ = 1), forward KL (β = 0), KV cache on."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    setting = pair.setting
    own = {"lmbda": 1.0, "max_new_tokens": setting.response, "max_length": setting.prompt + 1}
    answer = {"role": "assistant", "content": "w5"}  # it wants one, and does not train on it
    rows = [{"messages": [said, answer]} for said in _said(pair)]
    return _timed(pair, GKDTrainer, GKDConfig, own, rows)


def distillation_step(pair: BenchmarkPair) -> Callable[[], float]:
    """`trl.DistillationTrainer`, forward KL (β = 0), KV cache on, without vLLM."""
    from trl import DistillationConfig, DistillationTrainer

    own = {"max_completion_length": pair.setting.response}
    rows = [{"prompt": [said]} for said in _said(pair)]
    return _timed(pair, DistillationTrainer, DistillationConfig, own, rows)


def _said(pair: BenchmarkPair) -> list[dict[str, str]]:
    """The prompts as a user's messages, a word per token."""
    return [
        {"role": "user", "content": " ".join(f"w{i}" for i in prompt)}
        for prompt in prompts(pair.setting)
    ]


def _arguments(folder: str, batch: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": 1,
        "per_device_train_batch_size": batch,
        "learning_rate": 1e-6,
        "beta": 0.0,
        "temperature": 1.0,
        "gradient_checkpointing": False,  # it would turn the KV cache off
        "bf16": torch.cuda.is_available(),  # as ours: autocast over fp32 weights
        "use_cpu": not torch.cuda.is_available(),
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
    }


def _timed(
    pair: BenchmarkPair, kind: Any, config: Any, own: dict[str, Any], rows: list[dict[str, Any]]
) -> Callable[[], float]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = kind(
            model=pair.student,
            teacher_model=pair.teacher,
            args=config(**_arguments(folder, pair.setting.batch), **own),
            train_dataset=Dataset.from_list(rows),
            processing_class=_tokenizer(pair.setting.vocabulary),
        )
    clock = StepClock()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)

    def step() -> float:
        trainer.train()
        return clock.seconds

    return step
