"""The two-sample sliced Wasserstein distance, with its gradient written by hand."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jepa_train.distributed.collectives import at_least_fp32
from jepa_train.losses.matmul import products
from jepa_train.losses.rank_matching import differences_by_rank

# Projections held at a time: as many as a CPU's last cache holds, or enough to keep a GPU busy.
_BLOCK = {"cpu": 2**20, "cuda": 2**26}


def sliced_wasserstein(z: Tensor, target: Tensor, slices: Tensor) -> Tensor:
    """Two-sample sliced W2^2: mean over N and K of (sort(z @ c) - sort(target @ c))^2, over the columns c of slices.

    Unlike sort(dim=0) under autograd, it projects to rows of samples, sorts these, and accumulates the gradient
    slice by slice, so that memory does not grow with K. The gradient is that of the sorted form, each sample's rank
    held fixed; no second derivative.

    Args:
        z: (N, D); leading dimensions are averaged over.
        target: (N, D), or with z's leading dimensions; takes no gradient.
        slices: (D, K), unit columns; fastest where each column is contiguous, as unit_slices makes them.

    Returns:
        Scalar of this rank's samples, in fp32 at least, under autocast too; 0 without slices, not finite if z is
        not. No communication between ranks.
    """
    assert z.shape[-2:] == target.shape[-2:], f"as many targets as samples: {tuple(z.shape)}, {tuple(target.shape)}"
    assert target.ndim == 2 or target.shape == z.shape, f"{tuple(z.shape)}, {tuple(target.shape)}"
    with torch.autocast(z.device.type, enabled=False):
        wide = at_least_fp32(z)
        views = [x.reshape(-1, *x.shape[-2:]) for x in (wide, target.detach().to(wide.dtype))]
        rows = slices.to(wide.dtype).mT.contiguous()  # (K, D)
        summed: Tensor = _SummedOverSlices.apply(*views, rows)
    return summed / max(len(rows), 1)


class _SummedOverSlices(torch.autograd.Function):
    """(V, N, D), (V or 1, N, D), (K, D) -> the sum over K of the mean over V and N of the squared differences."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        samples, targets = z.flatten(0, 1), target.flatten(0, 1)  # (V * N, D)
        total, gradient = z.new_zeros(()), torch.zeros_like(samples)
        for block in rows.split(max(_BLOCK[z.device.type] // len(samples), 1)):
            projected = products(block, samples).unflatten(1, z.shape[:2])  # (k, V, N)
            wanted = products(block, targets).unflatten(1, target.shape[:2])  # (k, V or 1, N)
            difference = differences_by_rank(projected, wanted).flatten(1)  # (k, V * N)
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
