"""The rectified generalized Gaussian: ReLU(mu + sigma * G), G with density proportional to exp(-|g|^p / p).

Equation names follow Rectified LpJEPA (arXiv 2602.01456). All closed forms are in terms of a = mu / sigma and the
regularised incomplete gamma functions at t = |a|^p / p.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv, gammaln
from torch import Tensor

from jepa_train.base.device import wide_dtype
from jepa_train.base.errors import require
from jepa_train.distributed.torch_private import gamma_sample

SigmaMode = Literal["gn", "rgn"]
_MU_MAX = 1e6  # in standard deviations; the closed forms are tested up to here


@dataclass(frozen=True, kw_only=True)
class RGG:
    """ReLU(X), X = mu + sigma * G, with unit variance before ("gn", X) or after ("rgn", ReLU(X)) rectification."""

    p: float
    mu: float
    sigma_mode: SigmaMode = "gn"

    def __post_init__(self) -> None:
        require(self.p >= 0.01, f"p must be at least 0.01, got {self.p}; the paper uses 0.25 to 2")
        bounds = f"mu must lie in [{-_MU_MAX:g}, {_MU_MAX:g}], got {self.mu}; the paper uses -3 to 1"
        require(abs(self.mu) <= _MU_MAX, bounds)

    @property
    def sigma(self) -> float:
        """The scale, before rectification."""
        return _sigma_gn(self.p) if self.sigma_mode == "gn" else _sigma_rgn(self.p, self.mu)

    @property
    def nonzero_fraction(self) -> float:
        """P(X > 0), in [0, 1]: the paper's expected L0 / D."""
        return _truncated_moments(self.p, self.mu / self.sigma)[0]

    @property
    def mean(self) -> float:
        """E ReLU(X)."""
        above, first, _ = _truncated_moments(self.p, self.mu / self.sigma)
        return self.mu * above + self.sigma * first

    @property
    def variance(self) -> float:
        """Var ReLU(X)."""
        return self.sigma**2 * _rectified_variance(self.p, self.mu / self.sigma)

    @property
    def gn_variance(self) -> float:
        """Var X, before rectification."""
        return (self.sigma / _sigma_gn(self.p)) ** 2

    def target(
        self,
        shape: Sequence[int],
        seed: int,
        count: Tensor | None = None,
        *,
        rectified: bool = True,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Independent fp32 draws of ReLU(X), or of X where not rectified; a function of the arguments, equal on ranks.

        Args:
            seed, count: of Step.draws("target"). With a count, a counter-based kernel draws (draws_triton.py): one
                launch, the same numbers on every model of GPU. Without one, torch's generator of the device.
        """
        if count is not None:
            from jepa_train.losses.draws_triton import rgg_draws  # start-up time; Triton may be missing

            return rgg_draws(shape, seed, count, p=self.p, mu=self.mu, sigma=self.sigma, rectified=rectified)
        draws = torch.Generator(device).manual_seed(seed)
        return self.sample(shape, draws) if rectified else self.gn_sample(shape, draws)

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Independent fp32 draws of ReLU(X) on the generator's device."""
        return self.gn_sample(shape, generator).relu_()

    def gn_sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Independent fp32 draws of X, before rectification, on the generator's device."""
        if self.p == 2:
            draws = torch.randn(*shape, generator=generator, device=generator.device, dtype=torch.float32)
            return draws.mul_(self.sigma).add_(self.mu)
        # |G| = (p * Gamma(1/p))^(1/p), in logarithms: for small p the power overflows fp32, sigma * power does not.
        gamma = _gamma_sample(1 / self.p, shape, generator)
        size = gamma.mul_(self.p).log_().div_(self.p).add_(math.log(self.sigma)).exp_()
        signs = torch.rand(*shape, generator=generator, device=generator.device, dtype=torch.float32).sub_(0.5)
        return size.copysign_(signs).add_(self.mu)


def mu_of_fraction(fraction: float, *, p: float, sigma_mode: SigmaMode) -> float:
    """The mu at which RGG has this nonzero_fraction, in (0, 1), to seven digits: equal on all machines.

    It inverts P(G > -a) = (1 + sgn(a) P(1/p, |a|^p / p)) / 2 for a = mu / sigma. Unit variance gives sigma.
    """
    t = gammaincinv(1 / p, 2 * fraction - 1) if fraction >= 0.5 else gammainccinv(1 / p, 2 * fraction)
    a = math.copysign(float(p * t) ** (1 / p), fraction - 0.5)
    sigma = _sigma_gn(p) if sigma_mode == "gn" else _rectified_variance(p, a) ** -0.5
    return float(f"{a * sigma:.7g}")


def _gamma_sample(alpha: float, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Independent fp32 draws of the Gamma distribution with shape alpha.

    For a whole number this is a sum of alpha exponential variables, the logarithm of a product of uniform ones: two to
    three times as fast on a CPU, where torch draws exponential and Gamma variables one by one.
    """
    device = generator.device
    if alpha in (1, 2, 3, 4):
        # In float64, and away from 0: a product in fp32 would cut the tail off within the range of the draws.
        uniform = torch.rand(int(alpha), *shape, generator=generator, device=device, dtype=wide_dtype(device))
        return uniform.neg_().add_(1).prod(0).log_().neg_().float()
    constant = torch.full(tuple(shape), alpha, device=device, dtype=torch.float32)
    return gamma_sample(constant, generator=generator)


def _truncated_moments(p: float, a: float) -> tuple[float, float, float]:
    """E[G^j 1{G > -a}] for j = 0, 1, 2."""
    t = math.exp(min(p * math.log(abs(a)) - math.log(p), 700)) if a else 0.0  # past 700 the tails are empty
    log_norm = gammaln(1 / p)
    first = 0.5 * math.exp(math.log(p) / p + gammaln(2 / p) - log_norm) * gammaincc(2 / p, t)
    second = _sigma_gn(p) ** -2 * _above(3 / p, t, a)
    return _above(1 / p, t, a), float(first), second


def _above(s: float, t: float, a: float) -> float:
    """(1 + sgn(a) * P(s, t)) / 2; for a < 0 by the upper function, which stays accurate in the tail."""
    return float((1 + gammainc(s, t)) / 2 if a >= 0 else gammaincc(s, t) / 2)


def _rectified_variance(p: float, a: float) -> float:
    """Var ReLU(a + G)."""
    above, first, second = _truncated_moments(p, a)
    if a <= 0:
        return max(a * a * above + 2 * a * first + second - (a * above + first) ** 2, 0.0)
    below = _truncated_moments(p, -a)[0]  # by ReLU(a + G) - a, whose terms do not cancel for large a
    return second + a * a * below - (first - a * below) ** 2


@functools.lru_cache(maxsize=256)
def _sigma_gn(p: float) -> float:
    """The sigma of unit variance before rectification: sqrt(Gamma(1/p) / Gamma(3/p)) / p^(1/p)."""
    return math.exp((gammaln(1 / p) - gammaln(3 / p)) / 2 - math.log(p) / p)


@functools.lru_cache(maxsize=256)
def _sigma_rgn(p: float, mu: float) -> float:
    """The sigma of unit variance after rectification, by root finding: the variance grows with sigma."""

    def excess(log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        return sigma**2 * _rectified_variance(p, mu / sigma) - 1

    low = math.log(_sigma_gn(p))  # rectifying shrinks the variance, so unit variance needs at least this sigma
    high = low + 1
    while excess(high) < 0:
        high += 1
    return math.exp(brentq(excess, low - 1e-6, high, xtol=1e-14))
