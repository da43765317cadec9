"""The only torch.distributed: ranks, differentiable reductions, batch norm of the global batch, DDP.

Convention: every rank computes the same global loss. A collective's backward is its transpose, summed over the
ranks' losses, so a gradient on rank r is world_size times its share of the one-process gradient; DDP's averaging
then gives exactly the gradient of one process on the global batch. Without a process group all of it is the identity.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if _initialized() else 0


def world_size() -> int:
    """The number of ranks; 1 without a process group."""
    return dist.get_world_size() if _initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0, the one that reports and writes."""
    return rank() == 0


def mean_over_ranks(x: Tensor) -> Tensor:
    """The elementwise mean of the ranks' x, equal on all ranks; differentiable. Any shape, the same on every rank."""
    return _Mean.apply(x) if world_size() > 1 else x


def gather_over_ranks(x: Tensor) -> Tensor:
    """(N, ...) -> (W * N, ...) in rank order, equal on all ranks; differentiable. N is the same on all W ranks."""
    return _Gather.apply(x) if world_size() > 1 else x


@torch.no_grad()
def gather_rows(x: Tensor) -> Tensor:
    """(N_r, ...) -> (sum of N_r, ...) in rank order, equal on all ranks; N_r may differ, 0 included. No gradient."""
    if world_size() == 1:
        return x
    counts = _all_gather(torch.tensor([len(x)], device=x.device)).tolist()
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = _all_gather(padded).split(max(counts)) if max(counts) else [x] * len(counts)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def broadcast_flag(flag: bool) -> bool:
    """Rank 0's flag, on every rank."""
    if world_size() == 1:
        return flag
    value = torch.tensor([flag], dtype=torch.uint8, device=_collective_device())
    dist.broadcast(value, src=0)
    return bool(value.item())


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on at least one rank."""
    if world_size() == 1:
        return flag
    value = torch.tensor([flag], dtype=torch.uint8, device=_collective_device())
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


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


class GlobalBatchNorm(_BatchNorm):
    """Batch norm with the statistics of the global batch, on any device and for any (N, C, ...) input.

    On one rank it is nn.BatchNorm. On several it normalises with the mean and biased variance of all ranks' samples
    (N equal on every rank), and its running statistics are those of one process on the whole batch. Statistics are
    taken and reduced in fp32 at least, by one collective forward and one backward; the memory format is the input's.
    PyTorch's SyncBatchNorm refuses CPU tensors.

    drop and act run after the normalisation, as in timm's BatchNormAct2d. State-dict names are nn.BatchNorm's.
    """

    def __init__(self, like: _BatchNorm):
        """Take over the settings, parameters and buffers of `like`; nothing is copied."""
        super().__init__(
            like.num_features,
            eps=like.eps,
            momentum=cast(Any, like.momentum),  # None, a cumulative average, is allowed but not in the stub
            affine=like.affine,
            track_running_stats=like.track_running_stats,
        )
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked
        self.drop = getattr(like, "drop", nn.Identity())
        self.act = getattr(like, "act", nn.Identity())
        self.train(like.training)

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.ndim >= 2, f"batch norm takes (N, C, ...), got {tuple(input.shape)}"

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        alone = world_size() == 1 or not (self.training or self.running_mean is None)
        return self.act(self.drop(super().forward(input) if alone else self._normalize_globally(input)))

    def _normalize_globally(self, x: Tensor) -> Tensor:
        mean, variance = _global_statistics(x.detach())
        if self.training and self.track_running_stats:
            self._update_running(mean, variance, count=x.numel() // x.shape[1] * world_size())
        weight = self.weight.to(mean.dtype) if self.affine else torch.ones_like(mean)
        bias = self.bias.to(mean.dtype) if self.affine else torch.zeros_like(mean)
        return _Normalize.apply(x, weight, bias, mean, variance, self.eps)

    def _update_running(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), weight)


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """The module with every batch norm in it (timm's BatchNormAct2d too) made a GlobalBatchNorm, in place.

    Parameters and buffers are the same objects afterwards, under the same state-dict names.
    """
    if isinstance(module, _BatchNorm) and not isinstance(module, GlobalBatchNorm):
        return GlobalBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, convert_batch_norm(child))
    return module


def data_parallel(module: nn.Module) -> nn.Module:
    """The module wrapped in DDP when there are several ranks, otherwise the module itself.

    Buffers are not broadcast: GlobalBatchNorm's are equal on all ranks already.
    """
    if world_size() == 1:
        return module
    device = next(module.parameters()).device
    return DistributedDataParallel(
        module, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )


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
        return _all_gather(x)

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        # Not a reduce-scatter, which gloo lacks for some types: its saving is small beside the loss itself.
        return _all_reduce_sum(grad)[rank_slice(len(grad))]


class _Normalize(torch.autograd.Function):
    """Batch norm with given statistics (C,) of all ranks' x; its backward includes their dependence on every rank's x.

    By nn.BatchNorm's own kernels: elementary operations under autograd take about 10 times as long on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        return functional.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        if grad.stride() != x.stride():  # of global pooling, say; the kernels are slow on a mixture
            grad = torch.empty_like(x).copy_(grad)
        only_sums = [False, True, True]  # its gradient of x would be by this rank's sums alone
        _, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, inverse_deviation, True, 0.0, only_sums
        )
        sums = _all_gather(torch.stack([grad_weight, grad_bias])[None])  # on gloo one exchange, an all-reduce two
        means = sums.sum(0) / (x.numel() // x.shape[1] * world_size())
        # scale * (grad - mean(grad) - normalized * mean(grad * normalized)), as a multiple of grad, one of x and a rest
        scale = weight * inverse_deviation
        slope = -scale * inverse_deviation * means[0]
        rest = -scale * means[1] - slope * mean
        scale, slope, rest = (part.view(-1, *[1] * (x.ndim - 2)) for part in (scale, slope, rest))
        grad_x = torch.addcmul(rest, x, slope).addcmul_(grad, scale)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None


def _global_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) over all ranks' x (N, C, ...), in fp32 at least."""
    # The kernel takes its precision from the running statistics, which it overwrites: these are for that alone.
    unused = torch.ones(2, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    local = torch.stack(
        torch.batch_norm_update_stats(x, unused[0], unused[1], 0.0)
    )  # on a CPU 60 times as fast as var_mean
    means, variances = _all_gather(local[None]).unbind(1)  # (W, C) each: one collective for both
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


def _all_reduce_sum(x: Tensor) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _all_gather(x: Tensor) -> Tensor:
    whole = x.new_empty(world_size() * len(x), *x.shape[1:])
    dist.all_gather_into_tensor(whole, x.detach().contiguous())
    return whole


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def _collective_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
