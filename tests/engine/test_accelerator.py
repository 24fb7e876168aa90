"""On a CUDA device: the same tokens as on a CPU, bf16 near fp32, no waiting per token.

Skipped elsewhere; the measurements are those of `python -m benchmarks.accelerator`.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks import accelerator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")


def test_rows_are_those_of_the_reference_on_a_cpu() -> None:
    found = accelerator.oracle(CUDA)
    assert found["equal"] == found["rows"] > 0


def test_every_family_samples_what_it_samples_on_a_cpu() -> None:
    assert set(accelerator.families(CUDA).values()) == {"6 of 6"}


def test_half_precision_is_near_single_precision() -> None:
    found = accelerator.half_precision(CUDA)
    assert found["fp32"]["gradient_relative_error"] < 1e-5
    assert found["bf16"]["loss_relative_error"] < 1e-3
    assert found["bf16"]["gradient_relative_error"] < 3e-2
    assert found["bf16"]["kept_states_relative_error"] < 1e-2


def test_the_host_waits_per_block_and_not_per_token() -> None:
    found = accelerator.waits(CUDA)
    assert found["waits"] <= 5 * found["blocks"] < found["tokens"]
