"""Peak memory is that of the time since the last reset."""

import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jepa_train.base import system_metrics
from jepa_train.base.system_metrics import peak_memory_gb, reset_peak_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak of a process")
def test_a_peak_is_seen_after_it_is_over_and_forgotten_at_the_reset() -> None:
    reset_peak_memory(CPU)
    before = peak_memory_gb(CPU)
    block = np.ones(62_500_000)  # 500 MB, every page written
    del block
    high = peak_memory_gb(CPU)
    assert high - before == pytest.approx(0.5, abs=0.15)  # threads of other tests may be at work
    reset_peak_memory(CPU)
    if peak_memory_gb(CPU) == high:
        pytest.skip("this kernel does not let a process reset its peak")
    assert peak_memory_gb(CPU) == pytest.approx(before, abs=0.15)


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_the_peak_is_that_of_the_whole_life(
    platform: str, unit: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which getrusage(2) gives in kilobytes on Linux, in bytes on macOS."""
    monkeypatch.setattr(system_metrics, "_PROC", tmp_path / "missing")
    monkeypatch.setattr(system_metrics, "sys", SimpleNamespace(platform=platform))
    usage = SimpleNamespace(RUSAGE_SELF=resource.RUSAGE_SELF, getrusage=lambda _: SimpleNamespace(ru_maxrss=2_000_000))
    monkeypatch.setattr(system_metrics, "resource", usage)
    reset_peak_memory(CPU)
    assert peak_memory_gb(CPU) == pytest.approx(2_000_000 * unit / 1e9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_what_tensors_took() -> None:
    device = torch.device("cuda")
    reset_peak_memory(device)
    before = peak_memory_gb(device)
    block = torch.ones(250_000_000, dtype=torch.uint8, device=device)
    del block
    assert peak_memory_gb(device) - before == pytest.approx(0.25, abs=0.01)
