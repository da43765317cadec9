"""How busy the process is: against work whose time is known, and against what torch and the kernel say."""

import time

import pytest
import torch

from jepa_train.base.system_metrics import SystemMetrics


def clocks() -> tuple[float, float]:
    """Of the wall, and of this process's work."""
    return time.monotonic(), time.process_time()


def test_a_process_that_sleeps_is_idle_and_one_that_counts_is_busy() -> None:
    """Between what was used from before the first look to after the second, and from after the first to before it."""
    before = clocks()
    machine = SystemMetrics()
    for busy in (False, True):
        after = clocks()
        while clocks()[0] < after[0] + 0.2 or (busy and clocks()[1] < after[1] + 0.2):
            time.sleep(0.0 if busy else 0.2)
        soon = clocks()
        found = machine.metrics()["system/cpu_utilization_percentage"]
        late = clocks()
        least = 100 * (soon[1] - after[1]) / (late[0] - before[0])
        most = 100 * (late[1] - before[1]) / (soon[0] - after[0])
        assert 0.99 * least <= found <= 1.01 * most
        before = soon


def test_reports_that_come_at_once_measure_nothing() -> None:
    machine = SystemMetrics()
    assert machine.metrics() == {}


def test_memory_grows_with_what_is_held() -> None:
    machine, name = SystemMetrics(), "system/system_memory_usage_megabytes"
    time.sleep(0.06)
    before = machine.metrics()
    held = torch.ones(25_000_000)  # 100 MB
    time.sleep(0.06)
    if name in before:  # Linux
        assert machine.metrics()[name] - before[name] == pytest.approx(held.nbytes / 1e6, abs=10)
    assert ("system/gpu_memory_usage_percentage" in before) == torch.cuda.is_available()
