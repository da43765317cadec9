"""Batch norm with the statistics of the global batch, on any device; PyTorch's SyncBatchNorm refuses CPU tensors."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from jepa_train.distributed.collectives import all_gather, world_size
from jepa_train.distributed.torch_private import AnyBatchNorm


class GlobalBatchNorm(AnyBatchNorm):
    """Batch norm with the statistics of the global batch, on any device and for any (N, C, ...) input.

    On one rank it is nn.BatchNorm. On several it normalises with the mean and biased variance of all ranks' samples
    (N equal on every rank), and its running statistics are those of one process on the whole batch. Statistics are
    taken and reduced in fp32 at least, by one collective forward and one backward; the memory format is the input's.

    drop and act run after the normalisation, as in timm's BatchNormAct2d. State-dict names are nn.BatchNorm's.
    """

    def __init__(self, like: Any):
        """Take over the settings, parameters and buffers of `like`, an affine batch norm; nothing is copied."""
        assert like.affine, f"batch norm without weight and bias: {like}"
        super().__init__(like.num_features, eps=like.eps, momentum=like.momentum)
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked
        self.drop = getattr(like, "drop", nn.Identity())
        self.act = getattr(like, "act", nn.Identity())
        self.train(like.training)

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.ndim >= 2, f"batch norm takes (N, C, ...), got {tuple(input.shape)}"

    def forward(self, input: Tensor) -> Tensor:
        globally = self.training and world_size() > 1
        return self.act(self.drop(self._normalize_globally(input) if globally else super().forward(input)))

    def _normalize_globally(self, x: Tensor) -> Tensor:
        mean, variance = _global_statistics(x.detach())
        count = x.numel() // x.shape[1] * world_size()
        own: Any = self  # in the stub, the buffers and the momentum may be None
        own.num_batches_tracked.add_(1)
        own.running_mean.lerp_(mean.to(own.running_mean.dtype), own.momentum)
        own.running_var.lerp_((variance * (count / (count - 1))).to(own.running_var.dtype), own.momentum)
        return _Normalize.apply(x, self.weight.to(mean.dtype), self.bias.to(mean.dtype), mean, variance, self.eps)


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """The module with every batch norm in it (timm's BatchNormAct2d too) made a GlobalBatchNorm, in place.

    Parameters and buffers are the same objects afterwards, under the same state-dict names.
    """
    if isinstance(module, AnyBatchNorm) and not isinstance(module, GlobalBatchNorm):
        return GlobalBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, convert_batch_norm(child))
    return module


class _Normalize(torch.autograd.Function):
    """Batch norm with given statistics (C,) of all ranks' x; its backward includes their dependence on every rank's x.

    Uses nn.BatchNorm's kernels: elementary operations under autograd take about 10 times as long on a CPU.
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
        if grad.stride() != x.stride():  # e.g. after global pooling; the kernels are slow with mixed memory formats
            grad = torch.empty_like(x).copy_(grad)
        only_sums = [False, True, True]  # its gradient of x would use this rank's sums alone
        _, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, inverse_deviation, True, 0.0, only_sums
        )
        sums = all_gather(torch.stack([grad_weight, grad_bias])[None])  # one exchange on gloo; an all-reduce takes two
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
    # The kernel takes its precision from the running statistics, which it overwrites: these serve that purpose alone.
    unused = torch.ones(2, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    # on a CPU 60 times as fast as var_mean
    local = torch.stack(torch.batch_norm_update_stats(x, unused[0], unused[1], 0.0))
    means, variances = all_gather(local[None]).unbind(1)  # (W, C) each: one collective for both
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)
