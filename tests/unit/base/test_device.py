"""Selection of the training device, with the answers of torch replaced.

Run: python -m pytest tests/unit/base/test_device.py
"""

import os

import pytest
import torch

from jepa_train.base.device import training_device, wide_dtype
from jepa_train.distributed import collectives


@pytest.mark.parametrize(
    ("cuda", "mps", "ranks", "variable", "expected"),
    [
        (False, False, 1, None, "cpu"),
        (False, True, 1, None, "mps"),
        (False, True, 1, "0", "cpu"),
        (False, True, 2, None, "cpu"),  # gloo exchanges tensors of the CPU alone
        (True, True, 1, None, "cuda"),
    ],
)
def test_the_device_is_a_gpu_then_an_apple_gpu_then_the_cpu(
    cuda: bool, mps: bool, ranks: int, variable: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(collectives, "world_size", lambda: ranks)
    monkeypatch.delenv("JEPA_MPS", raising=False)
    if variable is not None:
        monkeypatch.setenv("JEPA_MPS", variable)
    assert training_device().type == expected


def test_only_mps_has_no_float64_and_unsupported_operations_fall_back() -> None:
    assert [wide_dtype(torch.device(name)) for name in ("cpu", "cuda", "meta", "mps")] == [
        *[torch.float64] * 3,
        torch.float32,
    ]
    assert os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
