"""How busy the process is: against work whose time is known, and against what torch and the kernel say."""

import time

import pytest
import torch

from jepa_train.machine import Machine


def test_a_process_that_sleeps_is_idle_and_one_that_counts_is_busy() -> None:
    machine = Machine()
    time.sleep(0.2)
    assert machine.metrics()["system/cpu_utilization_percentage"] < 30
    began, cpu = time.monotonic(), time.process_time()
    while time.process_time() - cpu < 0.2:
        pass
    share = 100 * 0.2 / (time.monotonic() - began)  # of a core, on a machine that others use as well
    assert machine.metrics()["system/cpu_utilization_percentage"] == pytest.approx(share, rel=0.3)


def test_reports_that_come_at_once_measure_nothing() -> None:
    machine = Machine()
    assert machine.metrics() == {}


def test_memory_grows_with_what_is_held() -> None:
    machine, name = Machine(), "system/system_memory_usage_megabytes"
    time.sleep(0.06)
    before = machine.metrics()
    held = torch.ones(25_000_000)  # 100 MB
    time.sleep(0.06)
    if name in before:  # Linux
        assert machine.metrics()[name] - before[name] == pytest.approx(held.nbytes / 1e6, abs=10)
    assert ("system/gpu_memory_usage_percentage" in before) == torch.cuda.is_available()
