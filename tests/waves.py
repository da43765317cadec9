"""Inputs without a random generator, on which the peers' public code was run once: tests/parity has its answers."""

import math

import torch
from torch import Tensor


def wave(*shape: int, shift: float = 0.0) -> Tensor:
    """sin(k^2 / 10 + shift) over the entries k = 0, 1, ..., in float64: bounded, without ties, of full rank."""
    entries = torch.arange(math.prod(shape), dtype=torch.float64)
    return (0.1 * entries.square() + shift).sin().view(shape)


def value_and_slope(loss: Tensor, z: Tensor) -> tuple[float, float]:
    """The loss, and its derivative by z along wave(*z.shape, shift=2): a number for the whole gradient."""
    (gradient,) = torch.autograd.grad(loss, z)
    return loss.item(), (gradient * wave(*z.shape, shift=2.0)).sum().item()
