"""Peak memory of the process, against work of known size.

Run: python -m pytest tests/unit/base/test_system_metrics.py
"""

import sys

import numpy as np
import pytest
import torch

from jepa_train.base.system_metrics import peak_memory_gb, reset_peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak of a process")
@pytest.mark.parametrize(
    "kind", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()"))]
)
def test_a_peak_is_reported_until_the_reset(kind: str) -> None:
    device = torch.device(kind)
    reset_peak_memory(device)
    before = peak_memory_gb(device)
    block = np.ones(25_000_000) if kind == "cpu" else torch.ones(200_000_000, dtype=torch.uint8, device=device)
    del block  # 200 MB, every page written
    high = peak_memory_gb(device)
    assert high - before == pytest.approx(0.2, abs=0.1)
    reset_peak_memory(device)
    if peak_memory_gb(device) == high:
        pytest.skip("this kernel does not let a process reset its peak")
    assert peak_memory_gb(device) == pytest.approx(before, abs=0.1)
