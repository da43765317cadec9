"""Expected sparsity of the targets of Rectified LpJEPA, for figures."""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincc, gammaln


def expected_nonzero_fraction(p: float, mu: np.ndarray | float, sigma_mode: str = "gn") -> np.ndarray:
    """P(mu + sigma * G > 0) of the generalized Gaussian G of shape p: the paper's expected L0 / D, for each mu.

    Args:
        sigma_mode: "gn", unit variance before rectification; "rgn", after it.
    """
    mu = np.atleast_1d(np.asarray(mu, dtype=float))
    sigma = _sigma_gn(p) if sigma_mode == "gn" else np.array([_sigma_rgn(p, float(one)) for one in mu])
    return _above(1 / p, p, mu / sigma)


def _above(shape: float, p: float, a: np.ndarray | float) -> np.ndarray:
    """(1 + sgn(a) * P(shape, |a|^p / p)) / 2."""
    return np.asarray((1 + np.sign(a) * gammainc(shape, np.abs(a) ** p / p)) / 2)


def _sigma_gn(p: float) -> float:
    return math.exp((gammaln(1 / p) - gammaln(3 / p)) / 2 - math.log(p) / p)


def _sigma_rgn(p: float, mu: float) -> float:
    """By root finding: the variance after rectification grows with sigma."""
    low = _sigma_gn(p)  # rectifying shrinks the variance, so it takes at least this sigma
    high = 2 * low
    while _rectified_variance(p, mu, high) < 1:
        high *= 2
    return float(brentq(lambda sigma: _rectified_variance(p, mu, sigma) - 1, low * (1 - 1e-6), high))


def _rectified_variance(p: float, mu: float, sigma: float) -> float:
    """Var ReLU(mu + sigma * G), from the moments of G where mu + sigma * G > 0."""
    a = mu / sigma
    zeroth = float(_above(1 / p, p, a))
    scale = math.exp(math.log(p) / p + gammaln(2 / p) - gammaln(1 / p)) / 2
    first = scale * float(gammaincc(2 / p, abs(a) ** p / p))
    second = float(_above(3 / p, p, a)) / _sigma_gn(p) ** 2
    mean = mu * zeroth + sigma * first
    return mu**2 * zeroth + 2 * mu * sigma * first + sigma**2 * second - mean**2
