"""The two-sample sliced Wasserstein distance, with its gradient written by hand."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jepa_train.base.kernel_launch import runs_kernels
from jepa_train.distributed.collectives import at_least_fp32
from jepa_train.losses.matmul import products, tf32_products
from jepa_train.losses.rank_matching import differences_by_rank

# Projections held at a time: as many as a CPU's last cache holds, or enough to keep a GPU busy.
_BLOCK = {"cpu": 2**20, "gpu": 2**26}
_LONGEST_ROW = 2048  # samples that one Triton program sorts in its registers


def sliced_wasserstein(z: Tensor, target: Tensor, slices: Tensor, *, tf32: bool = False) -> Tensor:
    """Two-sample sliced W2^2: mean over N and K of (sort(z @ c) - sort(target @ c))^2, over the columns c of slices.

    Unlike sort(dim=0) under autograd, it projects to rows of samples, sorts these, and accumulates the gradient
    slice by slice, so that memory does not grow with K. The gradient is that of the sorted form, each sample's rank
    held fixed; no second derivative.

    Args:
        z: (N, D); leading dimensions are averaged over.
        target: (N, D), or with z's leading dimensions; or (N,), its projections on every slice, as of an isotropic
            distribution. Takes no gradient.
        slices: (D, K), unit columns; fastest where each column is contiguous, as unit_slices makes them.
        tf32: on a GPU multiply in TF32. Rounding then swaps the ranks of near-equal samples: the value moves by 1e-5 of
            itself, the gradient by 1e-2, where other 1024 slices move it by 1.

    Returns:
        Scalar of this rank's samples, in fp32 at least, under autocast too; 0 without slices, not finite if z is
        not. No communication between ranks.
    """
    fits = target.shape in (z.shape, z.shape[-2:], z.shape[-2:-1])
    assert fits, f"as many targets as samples: {tuple(z.shape)}, {tuple(target.shape)}"
    with torch.autocast(z.device.type, enabled=False):
        wide = at_least_fp32(z)
        wanted = target.detach().to(wide.dtype)
        views = [x if x.ndim == 1 else x.reshape(-1, *x.shape[-2:]) for x in (wide, wanted)]
        rows = slices.to(wide.dtype).mT.contiguous()  # (K, D)
        if runs_kernels(wide) and wide.dtype == torch.float32 and wide.shape[-2] <= _LONGEST_ROW:
            mean: Tensor = _MeanByKernel.apply(*views, rows, tf32)
            return mean
        with tf32_products(tf32):
            summed: Tensor = _SummedOverSlices.apply(*views, rows)
    return summed / max(len(rows), 1)


def _blocks(rows: Tensor, samples: Tensor) -> tuple[Tensor, ...]:
    return rows.split(max(_BLOCK["cpu" if rows.device.type == "cpu" else "gpu"] // len(samples), 1))


def _projected(target: Tensor, block: Tensor) -> Tensor:
    """(V or 1, N, D), or (N,) that are projections already; (k, D) -> (k, V or 1, N)."""
    if target.ndim == 1:
        return target.repeat(len(block), 1, 1)
    return products(block, target.flatten(0, 1)).unflatten(1, target.shape[:2])


class _SummedOverSlices(torch.autograd.Function):
    """(V, N, D), (V or 1, N, D) or (N,), (K, D) -> the sum over K of the mean squared difference."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        samples = z.flatten(0, 1)  # (V * N, D)
        total, gradient = z.new_zeros(()), torch.zeros_like(samples)
        for block in _blocks(rows, samples):
            projected = products(block, samples).unflatten(1, z.shape[:2])  # (k, V, N)
            difference = differences_by_rank(projected, _projected(target, block)).flatten(1)  # (k, V * N)
            total += difference.square().sum()
            if ctx.needs_input_grad[0]:
                gradient += products(difference.mT, block.mT)
        ctx.save_for_backward(gradient.view_as(z).mul_(2 / len(samples)))
        return total / len(samples)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None


class _MeanByKernel(torch.autograd.Function):
    """(V, N, D), (V or 1, N, D) or (N,), (K, D), fp32 -> sliced_wasserstein in five launches, and one backward."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, target: Tensor, rows: Tensor, tf32: bool) -> Tensor:
        from jepa_train.losses.rank_matching_triton import subtract_by_rank  # start-up time; Triton may be missing

        samples = z.flatten(0, 1)  # (V * N, D)
        scale = 1 / (len(samples) * max(len(rows), 1))
        squares, gradient = z.new_empty(len(rows), len(z)), torch.empty_like(samples)
        start = 0
        with tf32_products(tf32):
            for block in _blocks(rows, samples):
                difference = (block @ samples.mT).unflatten(1, z.shape[:2])  # (k, V, N), once the targets are gone
                wanted = _projected(target, block)
                subtract_by_rank(difference, wanted, squares[start : start + len(block)], scale=scale)
                if ctx.needs_input_grad[0]:
                    gradient.addmm_(difference.flatten(1).mT, block, beta=float(start > 0), alpha=2 * scale)
                start += len(block)
        ctx.save_for_backward(gradient.view_as(z))
        return squares.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None
