"""How busy a run's process and its GPU are: metrics under system/, which the MLflow UI shows on a page of their own."""

import os
import time
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")
_LEAST_S = 0.05  # reports that a resumed run repeats come at once and measure nothing


class Machine:
    """Looks at this process, once per report: microseconds, and no waiting for the GPU."""

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
