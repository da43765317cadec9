"""Launches of Triton kernels: the one place where they start, so that tests count them on a machine without a GPU."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

from torch import Tensor

# Called before each launch with the kernel's name, its grid and its arguments by position and by name.
observers: list[Callable[[str, tuple[int, ...], tuple[Any, ...], dict[str, Any]], None]] = []


@functools.cache
def has_triton() -> bool:
    """False for torch's builds for Windows and macOS."""
    return importlib.util.find_spec("triton") is not None


def runs_kernels(x: Tensor) -> bool:
    """True where Triton kernels take the place of torch's operations: on a GPU.

    The meta device stands for a GPU too: there all shapes and launches of a step are known, and nothing is computed.
    """
    return x.device.type in ("cuda", "meta") and has_triton()


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Start a kernel on the device of its tensors; nothing starts for tensors of the meta device, or an empty grid."""
    for observe in observers:
        observe(kernel.__name__, grid, args, options)
    if 0 not in grid and not any(isinstance(arg, Tensor) and arg.is_meta for arg in args):
        kernel[grid](*args, **options)
