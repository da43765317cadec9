"""Load of a run's process and its GPU, under system/ (a page of its own in the MLflow UI), and peak memory."""

import contextlib
import os
import resource
import sys
import time
from pathlib import Path

import torch

from jepa_train.distributed import collectives

_PROC = Path("/proc/self")
_STATM = _PROC / "statm"
_LEAST_S = 0.05  # reports that a resumed run repeats come at once and measure nothing


class SystemMetrics:
    """Load of this process between two reports. A call takes microseconds and waits for no GPU."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def metrics(self) -> dict[str, float]:
        """Since the last look: CPU time in percent of one core's, resident memory; of the GPU the memory in use by all.

        How busy the GPU was is not among them: that takes NVML; train/images_per_s says what came of it.
        """
        wall, cpu = time.monotonic(), time.process_time()
        if wall - self._wall < _LEAST_S:
            return {}
        found = {"system/cpu_utilization_percentage": 100 * (cpu - self._cpu) / (wall - self._wall)}
        self._wall, self._cpu = wall, cpu
        if _STATM.exists():  # Linux
            resident = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            found["system/system_memory_usage_megabytes"] = resident / 1e6
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            found["system/gpu_memory_usage_megabytes"] = (total - free) / 1e6
            found["system/gpu_memory_usage_percentage"] = 100 * (total - free) / total
        return found


def reset_peak_memory(device: torch.device) -> None:
    """Start anew. On a CPU this takes Linux; elsewhere the peak remains that of the process's whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # no Linux, or a sandbox without this file
        (_PROC / "clear_refs").write_text("5")  # proc(5): sets the peak resident set to the current one


def peak_memory_gb(device: torch.device) -> float:
    """The peak in GB (1e9 bytes), the largest of all ranks, the same on each: tensors on a GPU, or the resident set.

    A CPU run's includes the interpreter and its libraries, half a GB; a GPU run's leaves out what the allocator keeps
    in reserve.
    """
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident_peak()
    return collectives.gather_rows(torch.tensor([peak], device=device)).max().item() / 1e9


def _resident_peak() -> int:
    """Bytes."""
    try:
        lines = (_PROC / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
