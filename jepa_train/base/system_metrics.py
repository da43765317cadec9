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
_LEAST_S = 0.05  # a resumed run repeats its reports at once: such intervals measure nothing


class SystemMetrics:
    """Load of this process between two reports. A call takes microseconds and does not synchronise with the GPU."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def metrics(self) -> dict[str, float]:
        """CPU time since the last call in percent of one core, resident memory, and memory of the GPU in use by all.

        GPU utilisation is left out, as it needs NVML; train/images_per_s shows its effect.
        """
        wall, cpu = time.monotonic(), time.process_time()
        if wall - self._wall < _LEAST_S:
            return {}
        found = {"system/cpu_utilization_percentage": 100 * (cpu - self._cpu) / (wall - self._wall)}
        self._wall, self._cpu = wall, cpu
        if (_PROC / "statm").exists():  # Linux
            resident = int((_PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            found["system/system_memory_usage_megabytes"] = resident / 1e6
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            found["system/gpu_memory_usage_megabytes"] = (total - free) / 1e6
            found["system/gpu_memory_usage_percentage"] = 100 * (total - free) / total
        return found


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far. Without /proc the peak on a CPU remains that of the process's whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        (_PROC / "clear_refs").write_text("5")  # proc(5): sets the peak resident set to the current one


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory in GB (1e9 bytes), the maximum over all ranks: of tensors on a GPU, else of the resident set.

    On a CPU this includes the interpreter and its libraries, half a GB; on a GPU it excludes the allocator's reserve.
    """
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident_peak()
    return collectives.gather_rows(torch.tensor([peak], device=device)).max().item() / 1e9


def _resident_peak() -> int:
    """Bytes."""
    status = _PROC / "status"
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
