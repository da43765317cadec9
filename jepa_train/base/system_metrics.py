"""Load of a run's process and its GPU, under system/ (a page of its own in the MLflow UI), and peak memory."""

import contextlib
import resource
import sys
from pathlib import Path

import psutil
import torch

from jepa_train.distributed import collectives


class SystemMetrics:
    """Load of this process between two reports. A call takes microseconds and does not synchronise with the GPU."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first interval begins

    def metrics(self) -> dict[str, float]:
        """CPU time since the last call in percent of one core, resident memory, and memory of the GPU in use by all.

        GPU utilisation is left out, as it needs NVML; train/images_per_s shows its effect.
        """
        found = {
            "system/cpu_utilization_percentage": self._process.cpu_percent(),
            "system/system_memory_usage_megabytes": self._process.memory_info().rss / 1e6,
        }
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
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): sets the peak resident set to the current one


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory in GB (1e9 bytes), the maximum over all ranks: of tensors on a GPU, else of the resident set.

    On a CPU this includes the interpreter and its libraries, half a GB; on a GPU it excludes the allocator's reserve.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    resident = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident
    return collectives.gather_rows(torch.tensor([peak], device=device)).max().item() / 1e9
