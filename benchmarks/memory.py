"""How much memory a call takes at its peak, beyond what was in use before it."""

import gc
import re
from pathlib import Path

import torch

from benchmarks.timing import Call, give_back

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def peaks(calls: tuple[Call, Call], device: torch.device) -> tuple[int, int] | None:
    """peak_extra of (reference, ours); None where it cannot be measured."""
    reference, ours = (peak_extra(call, device) for call in calls)
    return None if reference is None or ours is None else (reference, ours)


def peak_extra(call: Call, device: torch.device) -> int | None:
    """Bytes that the call adds at its peak: of PyTorch's allocator on a GPU, else of the process (Linux alone).

    Call it after a warm-up, which has made what stays.
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
    give_back()  # what is kept for later counts as in use: a call that takes from there would seem to need none
    _CLEAR.write_text("5")  # the peak starts again from what is in use now
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), flags=re.MULTILINE)
    assert found, f"{_STATUS} has no {name}"
    return int(found[1]) * 1024
