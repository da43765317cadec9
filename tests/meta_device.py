"""Training steps on torch's meta device: their operations are those of a GPU, and nothing is computed.

A read of a number on the host fails there, as there is none. Two steps with equal traces can be captured as one CUDA
graph: no shape depends on data, and no Python number that changes would be frozen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
_FREE = ("empty", "new_empty", "detach", "_unsafe_view", "set_", "lift_fresh")  # launch nothing, besides views


class Trace(TorchDispatchMode):
    """Operations on the device with their shapes, types, strides and Python numbers; `launches` has the names alone."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[tuple[Any, ...]] = []
        self.launches: list[str] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs or {}))
        if any(isinstance(leaf, Tensor) and leaf.device == META for leaf in [*leaves, *tree_leaves(out)]):
            name = func._schema.name.removeprefix("aten::")
            self.ops.append((name, *map(_described, leaves)))
            if not func.is_view and not name.startswith(_FREE):
                self.launches.append(name)
        return out


def _described(leaf: Any) -> Any:
    return (leaf.device.type, leaf.dtype, leaf.shape, leaf.stride()) if isinstance(leaf, Tensor) else leaf


class DeviceForm(TorchFunctionMode):
    """Let tensors on a CPU deny it, so that code takes its form for a GPU, with numbers."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return False if func == Tensor.is_cpu.__get__ else func(*args, **(kwargs or {}))


@contextmanager
def fused_optimizers() -> Iterator[None]:
    """Let AdamW run its fused step on the meta device, as on a GPU; torch has the form with a number as lr only."""
    devices = torch.utils._foreach_utils._get_fused_kernels_supported_devices
    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("_fused_adamw_.tensor_lr", lambda *_args, **_kwargs: None)
    place = "torch.optim.optimizer._get_fused_kernels_supported_devices"
    with mock.patch(place, side_effect=lambda: [*devices(), "meta"]):
        yield
    library._destroy()


def traces(step: Callable[[], object], count: int = 2) -> list[Trace]:
    """The traces of some steps after a first one, in which optimisers make their state."""
    step()
    found = []
    for _ in range(count):
        with Trace() as trace:
            step()
        found.append(trace)
    return found
