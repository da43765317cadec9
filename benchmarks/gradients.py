"""Forward and backward of a loss, and a check that two forms of it agree."""

from collections.abc import Callable

import torch
from torch import Tensor

# Of the largest entry, in float32. Where two samples nearly tie, rounding decides which of them a sorted form pulls
# where: at the largest shape of RDMReg, the gradients of both forms are 3e-3 away from float64's.
_TOLERANCES = {"value": 1e-4, "gradient": 1e-2}


def forward_backward(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Loss at z, and its gradient with respect to z."""
    z = z.detach().requires_grad_()
    value = loss(z)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient


def errors(
    loss: Callable[[Tensor], Tensor], reference: Callable[[Tensor], Tensor], z: Tensor
) -> dict[str, tuple[float, float]]:
    """Of value and gradient at z: the largest difference as a share of the largest entry, and its tolerance."""
    pairs = zip(forward_backward(loss, z), forward_backward(reference, z), strict=True)
    return {
        name: (float((ours - wanted).abs().max() / wanted.abs().max()), tolerance)
        for (name, tolerance), (ours, wanted) in zip(_TOLERANCES.items(), pairs, strict=True)
    }


def check_agreement(loss: Callable[[Tensor], Tensor], reference: Callable[[Tensor], Tensor], z: Tensor) -> None:
    """Raise AssertionError unless both have the same value and gradient at z."""
    for name, (error, tolerance) in errors(loss, reference, z).items():
        assert error < tolerance, f"{name} of ours and of the reference differ by {error:.2g} of the largest entry"
