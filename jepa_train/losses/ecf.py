"""Empirical characteristic function: means over samples of exp(i t x) at equally spaced knots t, and series in it.

Nothing of size samples * knots is ever stored. As the knots are equally spaced, exp(i t x) at all of them are powers of
its value at one: one sine and one cosine per sample. Powers rather than Chebyshev's three-term recurrence, which needs
half the operations but whose error grows with the square of the knot's number near x = 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Knots:
    """t_k = first * (1 + stride * k) for k = 0 .. num - 1, the stride being 1 or 2."""

    first: float
    stride: int
    num: int

    def on(self, x: Tensor) -> Tensor:
        """The t_k, (num,), in the type and on the device of x; created there, which avoids a blocking copy."""
        return self.first * torch.arange(1, 1 + self.stride * self.num, self.stride, dtype=x.dtype, device=x.device)


class Waves:
    """exp(i t_k x) for x: (..., N, K), in fp32 or float64, and the knots t_k. No gradient flows.

    In complex arithmetic, on a CPU twice as fast as separate sines and cosines. ecf_triton.py is the form of a GPU.
    """

    def __init__(self, x: Tensor, knots: Knots) -> None:
        angle = knots.first * x
        self._unit = torch.complex(angle.cos(), angle.sin())  # torch.polar takes three times as long
        self._ratio = self._unit if knots.stride == 1 else self._unit.square()  # of neighbouring knots
        self._num = knots.num

    def means(self) -> Tensor:
        """(num, ..., K), complex: the mean over N."""
        power = self._unit.clone()
        means = [power.mean(-2)]
        for _ in range(1, self._num):
            means.append(power.mul_(self._ratio).mean(-2))
        return torch.stack(means)

    def series(self, coefficients: Tensor) -> Tensor:
        """(num, ..., K), complex -> (..., N, K), real: the imaginary part of sum_k coefficients_k exp(i t_k x)."""
        highest, *lower = coefficients.unsqueeze(-2).flip(0)  # Horner's scheme
        total = highest.expand_as(self._unit).clone()
        for coefficient in lower:
            total.mul_(self._ratio).add_(coefficient)
        return total.mul_(self._unit).imag.contiguous()  # for the matrix product that follows
