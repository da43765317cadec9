"""Sparsity, rank and collapse metrics against NumPy.

Run: python -m pytest tests/unit/evaluation/test_metrics.py
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa_train.evaluation import metrics
from jepa_train.evaluation.metrics import RANK_ROWS, collapse_reason, dead_fraction, effective_rank, spread_rows


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rankme(x: np.ndarray) -> float:
    singular = np.linalg.svd(x, compute_uv=False)
    share = singular[singular > 0] / singular.sum()
    return math.exp(-(share * np.log(share)).sum())


def test_l1_sparsity_is_the_mean_over_rows_and_free_of_scale() -> None:
    z = gaussian(50, 16).relu().double()
    expected = np.mean([(np.abs(row).sum() / np.linalg.norm(row)) ** 2 / 16 for row in z.numpy()])
    for scale in (1e-30, 1.0, 1e30):  # squares of such floats underflow and overflow
        assert metrics.l1_sparsity((z * scale).float()).item() == pytest.approx(expected, rel=1e-5)


def test_nonzero_fraction_is_exact() -> None:
    assert metrics.nonzero_fraction(torch.tensor([[0.0, -0.0, 1e-30, -3.0]])).item() == 0.5  # no threshold


@pytest.mark.parametrize("shape", [(200, 12), (12, 200), (30, 30)])
def test_effective_rank_equals_the_svd(shape: tuple[int, int]) -> None:
    x = gaussian(*shape) * torch.logspace(0, -4, shape[1]) + 0.1
    assert effective_rank(x).item() == pytest.approx(rankme(x.double().numpy()), rel=1e-5)
    for value in (math.nan, math.inf, -math.inf):
        x[3, 2] = value
        assert effective_rank(x).isnan()


def test_dead_dimensions_are_those_that_do_not_vary() -> None:
    z = gaussian(300, 8)
    z[:, 0] = 0  # a dead ReLU
    z[:, 3] = 0.3 + 1e-8 * z[:, 3]  # constant up to rounding
    z[:, 5] = 1e-20 * z[:, 5]  # small, but alive
    z[:, 6] = 100 + z[:, 6].sign()  # far from zero, but alive
    assert dead_fraction(z).item() == 2 / 8
    assert dead_fraction(torch.zeros(4, 5)).item() == dead_fraction(torch.ones(1, 3)).item() == 1.0


def test_effective_rank_of_many_rows_uses_an_even_sample() -> None:
    rows = spread_rows(torch.arange(3 * RANK_ROWS), RANK_ROWS)
    assert torch.equal(rows, 3 * torch.arange(RANK_ROWS))
    assert torch.equal(spread_rows(rows, RANK_ROWS), rows)
    x = gaussian(3 * RANK_ROWS, 3)
    assert effective_rank(x) == effective_rank(x[::3])


def test_embedding_std_is_over_images_not_over_dimensions() -> None:
    z = gaussian(100, 6) * torch.arange(6) + 50 * gaussian(1, 6, seed=1)
    assert metrics.embedding_std(z).item() == pytest.approx(z.double().numpy().std(axis=0).mean(), rel=1e-5)


def test_collapse_is_relative_to_the_target() -> None:
    assert collapse_reason(0.0, 1.0) == "embedding_std 0 is below 5% of the target's 1"
    assert collapse_reason(0.049, 1.0)
    assert not collapse_reason(0.051, 1.0)
    assert not collapse_reason(0.009, 0.014)  # healthy for a target as narrow as this
    assert not collapse_reason(math.nan, 1.0)  # divergence, which the training loop tells apart
