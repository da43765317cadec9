"""CPU load, memory and peak memory of the process, against work of known size.

Run: python -m pytest tests/unit/base/test_system_metrics.py
"""

import sys
import time

import numpy as np
import pytest
import torch

from jepa_train.base import system_metrics
from jepa_train.base.system_metrics import SystemMetrics, peak_memory_gb, reset_peak_memory


def test_load_is_cpu_time_over_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"monotonic": 10.0, "process_time": 2.0}
    for name in clock:
        monkeypatch.setattr(system_metrics.time, name, lambda name=name: clock[name])
    machine = SystemMetrics()
    assert machine.metrics() == {}, "no time has passed"
    clock |= {"monotonic": 14.0, "process_time": 5.0}
    assert machine.metrics()["system/cpu_utilization_percentage"] == pytest.approx(75)


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


def test_resident_memory_includes_new_tensors() -> None:
    machine, name = SystemMetrics(), "system/system_memory_usage_megabytes"
    time.sleep(0.06)
    before = machine.metrics()
    block = torch.ones(25_000_000)  # 100 MB
    time.sleep(0.06)
    if name in before:  # Linux
        assert machine.metrics()[name] - before[name] == pytest.approx(block.nbytes / 1e6, abs=10)
