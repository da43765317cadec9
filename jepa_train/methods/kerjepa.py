"""KerJEPA (Zimmermann et al. 2025, arXiv 2512.19605): LeJEPA with the limit of SIGReg for infinitely many slices."""

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jepa_train.base.validation import conform, positive, ruled
from jepa_train.distributed.collectives import at_least_fp32, gather_over_ranks, mean_over_ranks
from jepa_train.methods.base import Activation, Objective, Step
from jepa_train.methods.lejepa import invariance_to_center

# of the integral over y = log(rate / (1 - rate)): with these the kernel is exact to 2e-8 for distances up
# to 1e4 times those of the target
_SPACING = 0.5
_RANGE = (-18.0, 4.0)  # around log(1 / dim)


@dataclass(frozen=True, kw_only=True)
class KerJEPA:
    """(1 - lamb) * invariance + lamb * mmd: LeJEPA's loss without random slices, for any number of views from two on.

    Of the paper's family this is the MMD with a Gaussian kernel and a Gaussian prior, sliced analytically: see
    sliced_mmd. Its time and memory grow with the square of the global batch and hardly with the dimension. lamb has
    LeJEPA's meaning; gamma = 1/2 is LeJEPA's window exp(-t^2 / 2), without its end at t_max.
    """

    lamb: float = ruled(0.05, lambda lamb: 0 <= lamb <= 1, "is a convex weight in [0, 1]", "LeJEPA starts at 0.05")
    gamma: float = positive(0.5, "LeJEPA's window is 0.5")

    name: ClassVar[str] = "kerjepa"
    only_pairs: ClassVar[str] = ""
    uses_center: ClassVar[bool] = True
    output_activation: ClassVar[Activation] = "none"

    def __post_init__(self) -> None:
        conform(self)

    def expected(self) -> dict[str, float]:
        """Standard deviation and fraction of non-zeros of a standard normal."""
        return {"std": 1.0, "nonzero_fraction": 1.0}

    def __call__(self, z: Tensor, step: Step) -> Objective:
        """The loss and its unweighted terms `invariance` and `mmd`: see Method. z: (V, N, D)."""
        wide = at_least_fp32(z)
        invariance = invariance_to_center(wide, step)
        regularizer = sliced_mmd(wide, gamma=self.gamma)
        loss = (1 - self.lamb) * invariance + self.lamb * regularizer
        return loss, {"invariance": invariance.detach(), "mmd": regularizer.detach()}


def sliced_mmd(z: Tensor, *, gamma: float = 0.5) -> Tensor:
    """Squared MMD of each view to N(0, I) in the kernel of sliced_kernel, times N sqrt(4 pi gamma), mean over views.

    The expectation over unit slices a of N * integral of |ecf(t) - exp(-t^2 / 2)|^2 exp(-t^2 / (4 gamma)) dt, where ecf
    is of the projections a @ z (KerJEPA, Prop. 1 and Thm. 7): SIGReg without the error of slices and quadrature, its
    biased estimator and its factors included. With k the kernel, x and x' samples and y, y' from N(0, I),

        E k(x, x') - 2 E k(x, y) + E k(y, y'),
        E k(x, y) = (1 + 2 gamma)^(-1/2) 1F1(1/2; D/2; -gamma |x|^2 / (1 + 2 gamma)),
        E k(y, y') = (1 + 4 gamma)^(-1/2).

    The last two follow from Thm. 7's exchange of the expectations over slices and samples: along a slice, y is N(0, 1).
    Thm. 7 is cited by a summary and by a later paper's derivation of the same mean, as its own text was not at hand.

    Args:
        z: (V, N, D), the N samples of this rank in V views; the same N on every rank.

    Returns:
        Scalar, in fp32 at least, under autocast too. Equal on all ranks.
    """
    z = at_least_fp32(z)
    dim, spread = z.shape[-1], 1 + 2 * gamma
    everyone = gather_over_ranks(z.transpose(0, 1)).transpose(0, 1)  # (V, world_size * N, D)
    norms, all_norms = z.square().sum(-1), everyone.square().sum(-1)
    with torch.autocast(z.device.type, enabled=False):
        distances = norms.unsqueeze(-1) + all_norms.unsqueeze(-2) - 2 * z @ everyone.mT  # (V, N, world_size * N)
    pairs = sliced_kernel(gamma * distances, dim).mean()
    crossed = sliced_kernel(gamma / spread * norms, dim).mean() / spread**0.5
    discrepancy = mean_over_ranks(pairs - 2 * crossed) + (1 + 4 * gamma) ** -0.5
    return everyone.shape[1] * (4 * math.pi * gamma) ** 0.5 * discrepancy


def sliced_kernel(x: Tensor, dim: int) -> Tensor:
    """Kummer's 1F1(1/2; dim/2; -x), the mean of exp(-x t^2) over a coordinate t of unit vectors (KerJEPA, Thm. 7).

    With x = gamma |a - b|^2 it is the mean over all slices of the Gaussian kernel of the projections of a and b. It is
    computed as a positive sum of exponentials, the trapezoid rule in log(t^2 / (1 - t^2)) for the integral form of 1F1
    (DLMF 13.4.1), value and derivative at once, in the memory of x.

    Args:
        x: any shape, not negative but for rounding, in fp32 or float64.

    Returns:
        As x, exact to 2e-8, or to the rounding of x.
    """
    kernel: Tensor = _SumOfExponentials.apply(x, _exponentials(dim))
    return kernel


@functools.cache
def _exponentials(dim: int) -> tuple[tuple[float, float], ...]:
    """Weights, with sum 1, and rates t^2 in [0, 1]."""
    if dim == 1:
        return ((1.0, 1.0),)
    low, high = _RANGE[0] - math.log(dim), _RANGE[1] - math.log(dim) + 60 / dim  # in few dimensions no t is rare
    places = [low + _SPACING * step for step in range(math.ceil((high - low) / _SPACING))]
    # the density of t^2 is proportional to rate^(-1/2) (1 - rate)^((dim - 3) / 2), and d rate = rate (1 - rate) dy
    masses = [math.exp(-_softplus(-y) / 2 - (dim - 1) / 2 * _softplus(y)) for y in places]
    below = masses[0] / math.expm1(_SPACING / 2)  # all places below the first, where masses are a geometric series
    total = below + sum(masses)
    rates = [0.0, *(math.exp(-_softplus(-y)) for y in places)]
    return tuple(zip([mass / total for mass in (below, *masses)], rates, strict=True))


def _softplus(y: float) -> float:
    """log(1 + exp(y))."""
    return max(y, 0.0) + math.log1p(math.exp(-abs(y)))


class _SumOfExponentials(torch.autograd.Function):
    """x, ((weight, rate), ...) -> sum of weight * exp(-rate * x), elementwise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, terms: tuple[tuple[float, float], ...]) -> Tensor:
        value, slope = torch.zeros_like(x), torch.zeros_like(x)
        for weight, rate in terms:
            part = (x * -rate).exp_()
            value.add_(part, alpha=weight)
            slope.add_(part, alpha=-weight * rate)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None
