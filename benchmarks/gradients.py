"""Forward and backward of a loss, and whether two forms of it agree."""

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-3  # of the largest entry: float32, summed in another order


def forward_backward(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of z and its gradient there."""
    z = z.detach().requires_grad_()
    value = loss(z)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient


def check_agreement(loss: Callable[[Tensor], Tensor], reference: Callable[[Tensor], Tensor], z: Tensor) -> None:
    """Raise AssertionError unless both have the same value and gradient: what differs is not worth comparing."""
    pairs = zip(forward_backward(loss, z), forward_backward(reference, z), strict=True)
    for name, (ours, wanted) in zip(("value", "gradient"), pairs, strict=True):
        error = (ours - wanted).abs().max() / wanted.abs().max()
        assert error < TOLERANCE, f"{name} of ours and of the reference differ by {error:.2g} of the largest entry"
