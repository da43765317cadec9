"""Ranks, differentiable reductions and the mean of the gradients: the package's only use of torch.distributed.

Convention: every rank computes the same global loss. A collective's backward is its transpose, summed over the
ranks' losses, so a gradient on rank r is world_size times its share of the one-process gradient; average_gradients
then gives exactly the gradient of one process on the global batch. Without a process group all is the identity.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jepa_train.distributed.torch_private import assert_on_device, foreach_copy_

_equal_batches = False  # equal_batches() is open


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if _initialized() else 0


def world_size() -> int:
    """The number of ranks; 1 without a process group."""
    return dist.get_world_size() if _initialized() else 1


def is_main() -> bool:
    """True on rank 0, which reports and writes."""
    return rank() == 0


def mean_over_ranks(x: Tensor) -> Tensor:
    """The elementwise mean of the ranks' x, equal on all ranks; differentiable. Any shape, the same on every rank."""
    return _Mean.apply(x) if world_size() > 1 else x


def sum_over_ranks_(x: Tensor) -> None:
    """Add the ranks' x up in place; no gradient. Any shape, contiguous, the same on every rank. One exchange."""
    if world_size() > 1:
        dist.all_reduce(x)


def gather_over_ranks(x: Tensor) -> Tensor:
    """(N, ...) -> (W * N, ...) in rank order, equal on all ranks; differentiable.

    Raises:
        ValueError: N is not the same on all W ranks; see require_equal_batches.
    """
    require_equal_batches(len(x))
    return _Gather.apply(x) if world_size() > 1 else x


def require_equal_batches(n: int) -> None:
    """Refuse, on every rank, a global batch that the ranks do not share equally: a mean over ranks would be skewed.

    With NCCL an assertion on the device ends the run instead, without this message: reading the sizes would synchronise
    host and device at each step.

    Args:
        n: the number of images on this rank.

    Raises:
        ValueError: with gloo, the sizes differ.
    """
    if world_size() == 1 or _equal_batches:
        return
    device = _collective_device()
    sizes = all_gather(torch.full((1,), n, device=device))
    if device.type == "cuda":
        assert_on_device((sizes == n).all())
    elif (sizes != n).any():
        raise ValueError(
            f"every rank must hold equally many images of the global batch, got {', '.join(map(str, sizes.tolist()))}; "
            "leave out the last, incomplete batch"
        )


@contextlib.contextmanager
def equal_batches() -> Iterator[None]:
    """Context in which require_equal_batches checks nothing: the caller has checked all batches of a run."""
    global _equal_batches
    outside, _equal_batches = _equal_batches, True
    try:
        yield
    finally:
        _equal_batches = outside


def all_gather(x: Tensor) -> Tensor:
    """(N, ...) -> (W * N, ...) in rank order, N equal on all ranks; no gradient. One exchange."""
    whole = x.new_empty(world_size() * len(x), *x.shape[1:])
    dist.all_gather_into_tensor(whole, x.detach().contiguous())
    return whole


@torch.no_grad()
def gather_rows(x: Tensor) -> Tensor:
    """(N_r, ...) -> (sum of N_r, ...) in rank order, equal on all ranks; N_r may differ, 0 included. No gradient."""
    if world_size() == 1:
        return x
    counts = all_gather(torch.tensor([len(x)], device=x.device)).tolist()
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = all_gather(padded).split(max(counts)) if max(counts) else [x] * len(counts)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


@torch.no_grad()
def gather_shares(x: Tensor, n: int) -> Tensor:
    """This rank's fair_slice of n rows -> all (n, ...), in order and equal on all ranks. No gradient.

    One exchange; unlike gather_rows, the host waits for nothing.
    """
    if world_size() == 1:
        return x
    sizes = [end - start for start, end in (_share(n, one) for one in range(world_size()))]
    padded = x.new_zeros(max(sizes), *x.shape[1:])
    padded[: len(x)] = x
    if not len(padded):
        return padded
    parts = all_gather(padded).split(len(padded))
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def broadcast(x: Tensor) -> Tensor:
    """Rank 0's x, on every rank; no gradient. Shape and type are the same on all ranks, and come back contiguous."""
    if world_size() == 1:
        return x
    copy = x.detach().clone(memory_format=torch.contiguous_format)
    dist.broadcast(copy, src=0)
    return copy


def broadcast_flag(flag: bool) -> bool:
    """Rank 0's flag, on every rank."""
    return bool(broadcast_int(int(flag)))


def broadcast_int(number: int) -> int:
    """Rank 0's number, on every rank."""
    return int(broadcast(torch.tensor([number], device=_collective_device())).item())


def fair_slice(n: int) -> slice:
    """This rank's contiguous part of n pieces of work; parts differ by one at most, and may be empty."""
    return slice(*_share(n, rank()))


def any_rank(flag: bool) -> bool:
    """True if the flag is set on any rank; equal on all ranks."""
    return bool(gather_rows(torch.tensor([flag], device=_collective_device())).any().item())


def broadcast_text(text: str) -> str:
    """Rank 0's text, on every rank. Sent as bytes: torch's broadcast of objects unpickles what it receives."""
    if world_size() == 1:
        return text
    size = broadcast_int(len(text.encode()))
    content = list(text.encode()) if is_main() else [0] * size
    return bytes(broadcast(torch.tensor(content, dtype=torch.uint8, device=_collective_device())).tolist()).decode()


def rank_slice(n: int) -> slice:
    """This rank's contiguous share of a global batch of n.

    Raises:
        ValueError: the ranks cannot share n equally.
    """
    if n % world_size():
        raise ValueError(
            f"global_batch must be divisible by the number of workers, got {n} for {world_size()}; "
            f"try {max(n // world_size(), 1) * world_size()}"
        )
    share = n // world_size()
    return slice(rank() * share, (rank() + 1) * share)


@torch.no_grad()
def same_start(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0, as another processor may round initial weights apart."""
    if world_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor, src=0)


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients by their means over the ranks, by one exchange; call it after backward.

    A parameter without a gradient is left out; all ranks must have the same ones. Each gradient's memory is dense and
    laid out alike on all ranks.
    """
    if world_size() == 1:
        return
    # in the order of the memory, as channels_last gradients would be rearranged
    flat = [grad.as_strided((grad.numel(),), (1,)) for one in parameters if (grad := one.grad) is not None]
    if flat:
        whole = torch.cat(flat).mul_(1 / world_size())
        dist.all_reduce(whole)
        foreach_copy_(flat, whole.split([part.numel() for part in flat]))


def at_least_fp32(x: Tensor) -> Tensor:
    """x in fp32, or float64 if it is that already: the precision in which statistics are taken and reduced."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return _all_reduce_sum(x) / world_size()

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return _all_reduce_sum(grad) / world_size()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return all_gather(x)

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        # Not a reduce-scatter, which gloo lacks for some types and which saves little beside the loss itself.
        return _all_reduce_sum(grad)[rank_slice(len(grad))]


def _share(n: int, one: int) -> tuple[int, int]:
    """Start and end of a rank's fair_slice of n."""
    return one * n // world_size(), (one + 1) * n // world_size()


def _all_reduce_sum(x: Tensor) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def _collective_device() -> torch.device:
    nccl = _initialized() and dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
