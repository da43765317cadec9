"""Peak memory since the last reset: of the GPU where there is one, of the process where there is none."""

import contextlib
import resource
import sys
from pathlib import Path

import torch

from jepa_train.distributed import collectives

_PROC = Path("/proc/self")


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
