"""Entropy and HSIC of embedding dimensions against SciPy and the printed estimator.

Run: python -m pytest tests/unit/evaluation/test_dependence.py
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from jepa_train.evaluation.dependence import HSIC_ROWS, entropy, hsic


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of_column(x: np.ndarray) -> float:
    """phi * H1 + H0, H1 by scipy."""
    alive = x[x != 0]
    phi = len(alive) / len(x)
    spacings = stats.differential_entropy(alive, method="vasicek") if len(alive) >= 5 else 0.0
    return phi * spacings + stats.bernoulli(phi).entropy()


def test_entropy_matches_scipy_by_column() -> None:
    z = gaussian(301, 6) * torch.tensor([0.1, 1.0, 30.0, 1.0, 1.0, 1.0]) + torch.tensor(
        [0.0, 2.0, 0.0, 0.0, -1.5, -2.6]
    )
    z[:, 3:] = z[:, 3:].relu()
    assert (z[:, 5] != 0).sum() < 5
    expected = np.mean([of_column(column) for column in z.double().numpy().T])
    assert entropy(z).item() == pytest.approx(expected, abs=1e-5)


def test_entropy_depends_on_scale_and_is_finite_for_constants() -> None:
    z = gaussian(500, 20)
    assert entropy(3 * z).item() == pytest.approx(entropy(z).item() + math.log(3), abs=1e-4)
    assert entropy(torch.zeros(100, 4)).item() == 0
    constant = entropy(torch.ones(100, 4)).item()
    assert math.isfinite(constant)
    assert constant < -10


def printed(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, Eq. 5, with the median of all distances that are not 0."""
    kernels = []
    for values in (x, y):
        distance = np.abs(values[:, None] - values)
        apart = np.sort(distance[distance > 0])
        kernels.append(np.exp(-(distance**2) / (2 * apart[(len(apart) - 1) // 2] ** 2)) * (1 - np.eye(len(x))))
    k, m = kernels
    n, ones = len(x), np.ones(len(x))
    trace = np.trace(k @ m) + ones @ k @ ones * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (trace - 2 / (n - 2) * ones @ k @ m @ ones) / (n * (n - 3))


@pytest.mark.parametrize("sparse", [False, True])
def test_hsic_matches_the_printed_estimator(*, sparse: bool) -> None:
    z = gaussian(31, 4) @ gaussian(4, 4, seed=1)
    if sparse:
        z = (z - 0.8).relu()
        assert 0.6 < (z == 0).float().mean() < 0.9
    columns = z.double().numpy().T
    own = [printed(column, column) for column in columns]
    pairs = [(i, j) for i in range(4) for j in range(i)]
    expected = np.mean([printed(columns[i], columns[j]) / math.sqrt(own[i] * own[j]) for i, j in pairs])
    assert expected > 0.05
    assert hsic(z).item() == pytest.approx(expected, rel=1e-4)


def test_hsic_ignores_constant_dimensions() -> None:
    z = gaussian(HSIC_ROWS, 3) @ gaussian(3, 3, seed=1)
    alone = torch.zeros(HSIC_ROWS, 2)
    alone[7, 0] = 1.0  # a single row apart: centered, nothing is left
    together = torch.cat([torch.ones(HSIC_ROWS, 1), z, alone], dim=1)
    assert hsic(together).item() == pytest.approx(hsic(z).item(), rel=1e-4)
    assert hsic(torch.ones(50, 3)).isnan()
    assert hsic(torch.cat([z[:, :1], alone], dim=1)).isnan()
