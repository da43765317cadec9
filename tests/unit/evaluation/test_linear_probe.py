"""Logistic regression on frozen embeddings against scikit-learn.

Run: python -m pytest tests/unit/evaluation/test_linear_probe.py
"""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from jepa_train.evaluation.linear_probe import L2_GRID, fit_logistic, linear_probe
from jepa_train.evaluation.probes import Frozen, Labelled, ProbeScore, spectrum_of, standardised


@pytest.fixture(scope="module")
def digits() -> dict[str, Tensor]:
    """Raw pixels, some of them constant, of 1,797 digits in three parts."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"train": order[:900], "val": order[900:1200], "test": order[1200:]}
    x = {f"{name}_x": torch.tensor(images[rows], dtype=torch.float32) for name, rows in parts.items()}
    return x | {f"{name}_y": torch.tensor(labels[rows]) for name, rows in parts.items()}


def by_numpy(digits: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The splits, standardised."""
    train = digits["train_x"].double().numpy()
    mean, std = train.mean(0), train.std(0)
    std[std == 0] = np.inf
    return {name: (digits[f"{name}_x"].double().numpy() - mean) / std for name in ("train", "val", "test")}


def probe(data: dict[str, Tensor], *, l2_grid: tuple[float, ...] = L2_GRID) -> ProbeScore:
    xs = standardised(*(data[f"{split}_x"] for split in ("train", "val", "test")))
    train, val, test = (Labelled(x, data[f"{split}_y"]) for x, split in zip(xs, ("train", "val", "test"), strict=True))
    (score,) = linear_probe(Frozen(train=train, val=val, test=test, num_classes=10), [train], l2_grid=l2_grid)
    return score


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_logistic_fit_equals_scikit_learn(digits: dict[str, Tensor], l2: float) -> None:
    x, y = by_numpy(digits)["train"][:, 1::5], digits["train_y"]  # 13 pixels
    reference = LogisticRegression(C=1 / (l2 * len(y)), solver="newton-cholesky", tol=1e-10).fit(x, y.numpy())
    start = torch.zeros(10, x.shape[1] + 1, dtype=torch.float64)
    x = torch.tensor(x)
    weight = fit_logistic(x, y, l2=l2, start=start, spectrum=spectrum_of(x), max_iter=1000, tolerance=1e-9)
    np.testing.assert_allclose(weight[:, :-1].numpy(), reference.coef_, atol=1e-3)
    bias = weight[:, -1].numpy()  # free up to a constant
    np.testing.assert_allclose(bias - bias.mean(), reference.intercept_ - reference.intercept_.mean(), atol=1e-3)


def test_linear_probe_scores_as_scikit_learn_over_the_same_grid(digits: dict[str, Tensor]) -> None:
    x = by_numpy(digits)
    scores = []
    grid = (1e-1, 1e-2, 1e-3)
    for l2 in grid:
        fit = LogisticRegression(C=1 / (l2 * 900), tol=1e-6, max_iter=2000).fit(x["train"], digits["train_y"].numpy())
        scores.append([fit.score(x[name], digits[f"{name}_y"].numpy()) for name in ("val", "test")])
    best = int(np.argmax([val for val, _ in scores]))
    found = probe(digits, l2_grid=grid)
    assert found.choice == grid[best]
    assert [found.val, found.test] == pytest.approx(scores[best], abs=2 / 300)


def test_many_dead_dimensions_have_a_spectrum_too() -> None:
    """Seven rarely active dimensions of 64, as at mu = -3: fp32's eigh gave NaN, or gave up, in one draw of ten."""
    draws = torch.Generator().manual_seed(0)
    for _ in range(40):
        x = torch.zeros(4500, 64)
        for alive in torch.randperm(64, generator=draws)[:7]:
            x[torch.randperm(4500, generator=draws)[:20], alive] = 1
        (x,) = standardised(x)
        spectrum = spectrum_of(x)
        moments = spectrum.axes @ torch.diag(spectrum.variances) @ spectrum.axes.T
        torch.testing.assert_close(moments, x.T @ x / len(x), atol=1e-5, rtol=0)
