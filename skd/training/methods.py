"""A method is where the response comes from × the loss. Both are columns of one table.

Torch-free, so that settings, reports and docs read the same table. Runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """`response` is used with probability `coin` per prompt, from share `start` of the run on;
    ground truth otherwise. The loss is a weighted sum of a divergence and a cross-entropy.
    """

    response: Literal["ground_truth", "teacher", "student", "interleaved"]
    divergence: float = 0.0
    cross_entropy: float = 0.0
    label: Literal["emitted", "replaced", "teacher_argmax"] = "emitted"  # of the cross-entropy
    coin: float = 1.0
    start: float = 0.0

    @property
    def needs_teacher(self) -> bool:
        """Whether training steps run the teacher (`teacher` responses are made beforehand)."""
        return (
            self.response == "interleaved"
            or self.divergence > 0.0
            or self.label == "teacher_argmax"
        )

    @property
    def samples(self) -> bool:
        """Whether responses are sampled while training."""
        return self.response in ("student", "interleaved")

    @property
    def known_share(self) -> float:
        """Of a run's rows, those that the teacher reads and that are known beforehand."""
        if not self.needs_teacher:
            return 0.0
        return 1.0 - self.coin * (1.0 - self.start) if self.samples else 1.0


METHODS: dict[str, Method] = {
    "sft": Method("ground_truth", cross_entropy=1.0),
    "seq_kd": Method("teacher", cross_entropy=1.0),
    "supervised_kd": Method("ground_truth", divergence=1.0),
    "on_policy_kd": Method("student", divergence=1.0),
    "on_policy_hard": Method("student", cross_entropy=1.0, label="teacher_argmax"),
    "imit_kd": Method("student", divergence=1.0, coin=0.5),
    "skd": Method("interleaved", divergence=1.0),
    "skd_mixed_loss": Method("interleaved", divergence=0.5, cross_entropy=0.5),
    "mixed_skd": Method("interleaved", divergence=1.0, coin=0.5),
    "two_stage_kd": Method("student", divergence=1.0, start=0.5),
}
