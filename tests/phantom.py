"""A GPU that computes nothing, and an audit of the operations that a training step asks of it.

Every tensor that would lie on the GPU is on torch's meta device, so shapes and operations are exact; production code
sees a CUDA device. Launches are counted with the weights of PyTorch's own CUDA kernels (LAUNCHES), a Triton kernel as
one. Deterministic: no time is measured.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from jepa_train.base import kernel_launch
from jepa_train.data import device_transfer
from jepa_train.model import device
from jepa_train.train import trainer

GPU = torch.device("cuda", 0)
_META = torch.device("meta")
_IS_CUDA = vars(torch._C.TensorBase)["is_cuda"].__get__
_HALF = {torch.float16, torch.bfloat16}

# launches of one operation of PyTorch, where it is not one
LAUNCHES = {
    "native_batch_norm": 3,  # statistics; running statistics and inverse; transform (bf16 is not cuDNN's)
    "native_batch_norm_backward": 2,
    "batch_norm_update_stats": 2,
    "native_layer_norm_backward": 2,
    "convolution_backward": 2,  # of the input and of the weight, by cuDNN
    "sort": 4,  # arange and copy of the indices, copy of the values, block sort
}
# neither a view nor a launch
_FREE = {"_unsafe_view", "_reshape_alias", "detach", "is_pinned", "is_same_size", "lift_fresh", "record_stream", "set_"}
# operations that read the device, or whose shape depends on its data
_READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero", "_linalg_eigh"}
_DRAWS = {"bernoulli_", "normal_", "rand", "randint", "randn", "randperm", "random_", "uniform_", "_standard_gamma"}
# what autocast computes in half and in full precision, as far as the networks of this project need it
_TO_HALF = {
    nn.functional.linear,
    nn.functional.conv2d,
    nn.functional.scaled_dot_product_attention,
    torch.conv2d,
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    torch.bmm,
    torch.mm,
    torch.addmm,
    torch.baddbmm,
}
_TO_FULL = {nn.functional.layer_norm, nn.functional.cross_entropy, nn.functional.softmax, torch.layer_norm}


def _batch_norm_update_stats(x: Tensor, *_args: Any) -> tuple[Tensor, Tensor]:
    mean = x.new_empty(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
    return mean, torch.empty_like(mean)


def _convolution(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    out = torch.ops.aten.convolution.default(x, weight, *args, **kwargs)
    return out.to(memory_format=_format_of(x, weight))


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> list[Tensor | None]:
    found = torch.ops.aten.convolution_backward.default(grad, x, weight, *args, **kwargs)
    form = _format_of(x, weight)
    return [each if each is None or each.ndim != 4 else each.to(memory_format=form) for each in found]


def _format_of(*tensors: Tensor) -> torch.memory_format:
    """cuDNN's choice for a convolution's results."""
    last = any(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous() for x in tensors)
    return torch.channels_last if last else torch.contiguous_format


# torch has no form for meta tensors, or one with other strides than on a GPU
_SUBSTITUTES: dict[str, Callable[..., Any]] = {
    "_fused_adamw_": lambda *_args, **_kwargs: None,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "batch_norm_update_stats": _batch_norm_update_stats,
}


class Audit(TorchDispatchMode):
    """Operations of device parts since clear(), those of backward passes too.

    launches: on the device, by phase: the function of device_step.py that runs, or "backward".
    faults: host-to-device copies, reads of the device, random draws and other computation on the host.
    trace: every operation on the device with its numbers, shapes and strides.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clear()

    def clear(self) -> None:
        """Forget what has been noted."""
        self.launches: Counter[str] = Counter()
        self.operations: dict[str, Counter[str]] = {}
        self.faults: list[str] = []
        self.trace: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        inputs = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in inputs if isinstance(leaf, Tensor)]
        with torch._C.DisableTorchFunction():  # torch's own code for meta tensors asks for their device too
            result = _SUBSTITUTES.get(name, func)(*args, **kwargs)
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            on_device = any(tensor.is_meta for tensor in (*tensors, *outputs))
            fault = _fault(name, tensors, outputs)
            described = [_described(leaf) for leaf in inputs]
        phase = _phase()
        if not phase:  # the host part may copy to the device
            return result
        if fault:
            self.faults.append(f"{fault} {name} at {_place()}")
        if on_device:
            self.trace.append(" ".join([func._schema.name, *described]))
        if on_device and not _launches_nothing(func, name):
            self.note(phase, name, _launches_of(name, tensors))
        return result

    def note(self, phase: str, name: str, launches: int = 1) -> None:
        """Add launches to a phase."""
        self.launches[phase] += launches
        self.operations.setdefault(phase, Counter())[name] += launches

    def note_kernel(self, name: str, *_launch: Any) -> None:
        """Add the launch of a Triton kernel."""
        self.note(_phase(), f"triton {name}")

    @property
    def total(self) -> int:
        """Launches of all phases."""
        return self.launches.total()


@contextlib.contextmanager
def phantom_gpu() -> Iterator[Audit]:
    """Let jepa_train find a GPU, on which nothing is computed, in this process."""
    audit = Audit()

    with contextlib.ExitStack() as stack:
        for target, attribute, value in (
            (device, "training_device", lambda: GPU),
            (trainer, "training_device", lambda: GPU),
            (trainer, "captured", lambda step, _device: step),
            (device_transfer, "_free", lambda _device: 2**40),
            (torch.cuda, "Stream", mock.MagicMock),
            (torch.cuda, "Event", mock.MagicMock),
            (torch.cuda, "stream", contextlib.nullcontext),
            (torch.cuda, "current_stream", mock.MagicMock),
            (torch.cuda, "get_rng_state", lambda _device: torch.empty(0)),
            (torch.cuda, "reset_peak_memory_stats", lambda _device: None),
            (torch.cuda, "is_bf16_supported", lambda *_a, **_k: True),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            *_launchers(audit),
        ):
            stack.enter_context(mock.patch.object(target, attribute, value))
        stack.enter_context(_PhantomDevice())
        stack.enter_context(
            mock.patch.object(kernel_launch, "observers", [*kernel_launch.observers, audit.note_kernel])
        )
        yield stack.enter_context(audit)


@contextlib.contextmanager
def phantom_ranks(count: int) -> Iterator[None]:
    """Let this process be the first of several ranks, which exchange nothing."""
    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def _launchers(audit: Audit) -> list[tuple[Any, str, Any]]:
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    def indexed(kernel: Any, _grid: Any) -> Callable[..., None]:
        return lambda *_args, **_kwargs: audit.note_kernel(kernel.__name__)

    return [(kind, "__getitem__", indexed) for kind in (InterpretedFunction, JITFunction)]


class _PhantomDevice(TorchFunctionMode):
    """Meta tensors say that they are on the GPU, tensors that are made there are meta, and autocast casts."""

    def __init__(self) -> None:
        super().__init__()
        self._cast: dict[int, tuple[Tensor, Tensor]] = {}  # parameter and its copy, as long as autocast is on

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == _IS_CUDA:
            return args[0].is_meta
        if func == Tensor.device.__get__:
            found = func(*args)
            return GPU if found == _META else found
        if func is Tensor.pin_memory:
            return args[0]
        args = tuple(map(_real_device, args))
        kwargs = dict(zip(kwargs, map(_real_device, kwargs.values()), strict=True))
        kwargs.pop("pin_memory", None)
        if torch.is_autocast_enabled("cuda"):
            if func in _TO_HALF:
                args, kwargs = tree_map_only(Tensor, self._half, (args, kwargs))
            elif func in _TO_FULL:
                args, kwargs = tree_map_only(Tensor, lambda x: x.float() if x.dtype in _HALF else x, (args, kwargs))
        else:
            self._cast.clear()
        return func(*args, **kwargs)

    def _half(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        half = torch.get_autocast_dtype("cuda")
        if not isinstance(x, nn.Parameter):
            return x.to(half)
        if id(x) not in self._cast:
            self._cast[id(x)] = (x, x.to(half))
        return self._cast[id(x)][1]


def _real_device(argument: Any) -> Any:
    return _META if isinstance(argument, torch.device) and argument.type == "cuda" else argument


def _fault(name: str, tensors: list[Tensor], outputs: list[Tensor]) -> str:
    """Reason why a captured step may not have this operation; "" if it may."""
    from_device, to_device = (any(x.is_meta for x in some) for some in (tensors, outputs))
    from_host = any(x.is_cpu and x.ndim > 0 for x in tensors)
    if name in ("copy_", "_to_copy") and any(x.is_cpu for x in tensors) and to_device:
        return "copy to the device:"
    if from_device and (name in _READS or any(x.is_cpu for x in outputs)):
        return "read of the device:"
    if (tensors or name in _DRAWS) and not from_device and not to_device:
        return "random draw on the host:" if name in _DRAWS else "computation on the host:"
    return "host tensor in an operation of the device:" if from_host else ""


def _launches_nothing(func: Any, name: str) -> bool:
    return func.is_view or name in _FREE or "empty" in name


def _launches_of(name: str, tensors: list[Tensor]) -> int:
    if name.startswith(("_foreach", "_fused", "_amp_foreach")):
        return -(-len(tensors) // 110)
    return LAUNCHES.get(name, 1)


def _described(leaf: Any) -> str:
    if not isinstance(leaf, Tensor):
        return "generator" if isinstance(leaf, torch.Generator) else repr(leaf)
    return f"{'device' if leaf.is_meta else 'host'}{tuple(leaf.shape)}{leaf.stride()}{leaf.dtype}"


def _phase() -> str:
    """Function of device_step.py that runs, or "backward"; "" outside the device part."""
    if torch._C._current_autograd_node() is not None:
        return "backward"
    for frame in _frames():
        if frame.f_code.co_filename.endswith("train/device_step.py"):
            name = frame.f_code.co_name
            return "training_loss" if name == "<genexpr>" else name.lstrip("_")
    return ""


def _place() -> str:
    """The nearest lines of jepa_train, innermost first."""
    inside = [frame for frame in _frames() if "/jepa_train/" in frame.f_code.co_filename]
    return " < ".join(
        f"{frame.f_code.co_filename.partition('/jepa_train/')[2]}:{frame.f_lineno}" for frame in inside[:3]
    )


def _frames() -> Iterator[FrameType]:
    """Frames of the call, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
