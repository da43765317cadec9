"""Peak memory of a call, beyond the memory in use before it."""

import gc
import re
from pathlib import Path

import torch

from benchmarks.timing import Call, give_back

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def peaks(calls: tuple[Call, Call], device: torch.device) -> tuple[int, int] | None:
    """peak_extra of (reference, ours); None if it cannot be measured."""
    reference, ours = (peak_extra(call, device) for call in calls)
    return None if reference is None or ours is None else (reference, ours)


def peak_extra(call: Call, device: torch.device) -> int | None:
    """Bytes that a call adds at its peak: in PyTorch's allocator on a GPU, else in the process (Linux only).

    Warm up before, so that allocations that stay are not counted.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not _CLEAR.exists():
        return None
    give_back()  # memory that the C library keeps counts as in use; a call that reuses it would seem to need none
    _CLEAR.write_text("5")  # reset the peak to the memory in use
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), flags=re.MULTILINE)
    assert found, f"{_STATUS} has no {name}"
    return int(found[1]) * 1024
