"""Batch norm with the statistics of the global batch, on any device; PyTorch's SyncBatchNorm refuses CPU tensors."""

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from timm.models import resnet
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jepa_train.base.kernel_launch import runs_kernels
from jepa_train.distributed.collectives import all_gather, world_size
from jepa_train.distributed.torch_private import AnyBatchNorm


class GlobalBatchNorm(AnyBatchNorm):
    """Batch norm with the statistics of the global batch, on any device and for any (N, C, ...) input.

    On one rank it is nn.BatchNorm. On several it normalises with the mean and biased variance of all ranks' samples
    (N equal on every rank), and its running statistics are those of one process on the whole batch. Statistics are
    taken and reduced in fp32 at least, by one collective forward and one backward; the memory format is the input's.

    With per_view, an input of V views (V * N, C, ...), view by view, is normalised with the statistics of each view,
    and the running statistics are updated V times, in the order of the views: outputs, gradients and buffers of V
    forward passes. set_num_views tells the layer V.

    drop and act run after the normalisation, as in timm's BatchNormAct2d. State-dict names are nn.BatchNorm's.

    On a GPU a layer takes three kernels forward and three backward for any number of views and ranks, which include a
    ReLU as act (batch_norm_triton.py). They read and write images with channels last.
    """

    def __init__(self, like: Any, *, per_view: bool = False):
        """Take over the settings, parameters and buffers of `like`, an affine batch norm; nothing is copied."""
        assert like.affine, f"batch norm without weight and bias: {like}"
        super().__init__(like.num_features, eps=like.eps, momentum=like.momentum)
        self.per_view = per_view
        self.num_views = 1
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked
        self.drop = getattr(like, "drop", nn.Identity())
        self.act = getattr(like, "act", nn.Identity())
        self.train(like.training)

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.ndim >= 2, f"batch norm takes (N, C, ...), got {tuple(input.shape)}"

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or (world_size() == 1 and self._groups == 1):
            return self.act(self.drop(super().forward(input)))
        if not _has_kernels(input):
            return self.act(self.drop(self._normalize(input)))
        from jepa_train.model.batch_norm_triton import laid_out  # start-up time; Triton may be missing

        relu = isinstance(self.act, nn.ReLU) and isinstance(self.drop, nn.Identity)
        out = _FusedNormalize.apply(laid_out(input), self.weight, self.bias, self, relu)
        return out if relu else self.act(self.drop(out))

    @property
    def _groups(self) -> int:
        """Number of parts of the batch that are normalised apart."""
        return self.num_views if self.per_view else 1

    def _normalize(self, x: Tensor) -> Tensor:
        means, variances = _global_statistics(x.detach(), self._groups)  # (V, C) each
        count = x.numel() // (self._groups * x.shape[1]) * world_size()
        own: Any = self  # in the stub, the buffers and the momentum may be None
        own.num_batches_tracked.add_(self._groups)
        _update(own.running_mean, means, own.momentum)
        _update(own.running_var, variances * (count / (count - 1)), own.momentum)
        return _Normalize.apply(x, self.weight.to(means.dtype), self.bias.to(means.dtype), means, variances, self.eps)


def convert_batch_norm(module: nn.Module, *, per_view: bool = False) -> nn.Module:
    """The module with every batch norm in it (timm's BatchNormAct2d too) made a GlobalBatchNorm, in place.

    Parameters and buffers are the same objects afterwards, under the same state-dict names. A ReLU that follows a batch
    norm in an nn.Sequential or in timm's ResNets becomes its act, and an identity takes its place.
    """
    if isinstance(module, AnyBatchNorm) and not isinstance(module, GlobalBatchNorm):
        return GlobalBatchNorm(module, per_view=per_view)
    for name, child in module.named_children():
        setattr(module, name, convert_batch_norm(child, per_view=per_view))
    for norm_name, act_name in _followed(module):
        norm, act = getattr(module, norm_name), getattr(module, act_name)
        if isinstance(norm, GlobalBatchNorm) and isinstance(norm.act, nn.Identity) and isinstance(act, nn.ReLU):
            norm.act = act
            setattr(module, act_name, nn.Identity())
    return module


def _followed(module: nn.Module) -> Iterable[tuple[str, str]]:
    """Names of pairs of children of which the second one always gets the output of the first one."""
    if type(module) is nn.Sequential:
        names = [name for name, _ in module.named_modules(remove_duplicate=False) if name and "." not in name]
        return itertools.pairwise(names)
    numbers = {resnet.ResNet: "1", resnet.BasicBlock: "1", resnet.Bottleneck: "12"}.get(type(module), "")
    return [(f"bn{number}", f"act{number}") for number in numbers]


def set_num_views(module: nn.Module, count: int) -> None:
    """Tell every GlobalBatchNorm in the module how many views of equal size its next inputs consist of."""
    for part in module.modules():
        if isinstance(part, GlobalBatchNorm):
            part.num_views = count


class _Normalize(torch.autograd.Function):
    """Batch norm of V views with given statistics (V, C) of all ranks' x (V * N, C, ...).

    Its backward includes their dependence on every rank's x. Uses nn.BatchNorm's kernels for what they can do:
    elementary operations under autograd take about 10 times as long on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, means: Tensor, variances: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, means, (variances + eps).rsqrt())
        normal, unused = torch.empty_like(x), means.new_empty(2, 0)
        parts = zip(x.chunk(len(means)), normal.chunk(len(means)), means, variances, strict=True)
        for part, place, mean, variance in parts:  # into its place: torch.cat would take half as long again
            places = {"out": place, "save_mean": unused[0], "save_invstd": unused[1]}
            torch.ops.aten.native_batch_norm.out(part, weight, bias, mean, variance, False, 0.0, eps, **places)
        return normal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, means, inverse_deviations = ctx.saved_tensors
        grad = _like(grad, x)  # the kernels are slow with mixed memory formats
        sums = _sums(grad, x, weight, means, inverse_deviations)
        totals = _of_all_ranks(sums).sum(0) if world_size() > 1 else sums
        count = len(means)
        averages = totals / (x.numel() // (count * x.shape[1]) * world_size())
        # scale * (grad - mean(grad) - normalized * mean(grad * normalized)), as a multiple of grad, one of x and a rest
        scale = weight * inverse_deviations
        slope = -scale * inverse_deviations * averages[:, 0]
        rest = -scale * averages[:, 1] - slope * means
        scale, slope, rest = (part.view(count, 1, -1, *[1] * (x.ndim - 2)) for part in (scale, slope, rest))
        grad, x_of_views = grad.unflatten(0, (count, -1)), x.unflatten(0, (count, -1))  # (V, N, C, ...)
        grad_x = torch.addcmul(rest, x_of_views, slope).addcmul_(grad, scale)
        return grad_x.flatten(0, 1).to(x.dtype), *sums.sum(0), None, None, None


class _FusedNormalize(torch.autograd.Function):
    """Batch norm of the views of a layer by the kernels of batch_norm_triton.py, with the layer's buffers updated.

    The statistics of all ranks are exchanged once forward, and the sums for the gradient once backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, layer: GlobalBatchNorm, relu: bool) -> Tensor:
        from jepa_train.model import batch_norm_triton as kernels

        found = _of_all_ranks(kernels.view_statistics(x, layer._groups))
        out, scales = kernels.normalize(x, found, weight, bias, layer, eps=layer.eps, relu=relu)
        ctx.save_for_backward(x, weight, bias, scales)
        ctx.relu = relu
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from jepa_train.model import batch_norm_triton as kernels

        x, weight, bias, scales = ctx.saved_tensors
        grad = _like(grad, x)
        sums, (grad_bias, grad_weight) = kernels.gradient_sums(grad, x, scales, weight, bias, relu=ctx.relu)
        sums = _of_all_ranks(sums)
        grad_x = kernels.input_gradient(grad, x, scales, sums, weight, bias, relu=ctx.relu)
        return grad_x, grad_weight, grad_bias, None, None


def _has_kernels(x: Tensor) -> bool:
    """True on a GPU, for the shapes and types of batch_norm_triton.py; torch.compile fuses the other form itself."""
    if torch.compiler.is_compiling() or not runs_kernels(x):
        return False
    from jepa_train.model import batch_norm_triton as kernels

    return kernels.has_form(x)


def _of_all_ranks(x: Tensor) -> Tensor:
    """(W, ...): x of every rank. One exchange: on gloo an all-reduce takes two."""
    return all_gather(x[None]) if world_size() > 1 else x[None]


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient in the memory format of x; it has another e.g. after global pooling."""
    return grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)


def _sums(grad: Tensor, x: Tensor, weight: Tensor, means: Tensor, inverse_deviations: Tensor) -> Tensor:
    """(V, 2, C): of each view on this rank, the gradients of weight and bias."""
    only_sums = [False, True, True]  # the kernel's gradient of x would use this rank's sums alone
    found = []
    parts = zip(grad.chunk(len(means)), x.chunk(len(means)), means, inverse_deviations, strict=True)
    for grad_part, part, mean, inverse_deviation in parts:
        _, *both = torch.ops.aten.native_batch_norm_backward(
            grad_part, part, weight, None, None, mean, inverse_deviation, True, 0.0, only_sums
        )
        found.append(torch.stack(both))
    return torch.stack(found)


def _global_statistics(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Means and biased variances (V, C) of the count views V in all ranks' x (V * N, C, ...), in fp32 at least."""
    # The kernel takes its precision from the running statistics, which it overwrites: these serve that purpose alone.
    unused = torch.ones(2, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    # on a CPU 60 times as fast as var_mean
    local = torch.stack(
        [torch.stack(torch.batch_norm_update_stats(part, unused[0], unused[1], 0.0)) for part in x.chunk(count)], dim=1
    )  # (2, V, C)
    if world_size() == 1:
        return local[0], local[1]
    means, variances = _of_all_ranks(local).unbind(1)  # (W, V, C) each
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


def _update(running: Tensor, values: Tensor, momentum: float) -> None:
    """Move running statistics (C,) by the values (V, C), one after the other: V steps of lerp_, at once."""
    steps = torch.arange(len(values) - 1, -1, -1, dtype=values.dtype, device=values.device)
    shares = momentum * (1 - momentum) ** steps
    running.mul_((1 - momentum) ** len(values)).add_((shares @ values).to(running.dtype))
