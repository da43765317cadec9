"""Rectified LpJEPA: its loss against sorting in NumPy, slices from singular vectors, statistics of the target.

Run: python -m pytest tests/unit/methods/test_rectified_lpjepa.py
"""

import numpy as np
import pytest
import ranks
import torch

from jepa_train.base.seeds import derive_seed, generator
from jepa_train.losses.rgg import RGG
from jepa_train.losses.slices import unit_slices
from jepa_train.methods import RectifiedLpJEPA
from jepa_train.methods.base import Step


def by_sorting(z: np.ndarray, target: np.ndarray, slices: np.ndarray) -> float:
    """W2^2 slice by slice, from the sorted samples."""
    distances = [np.mean((np.sort(z @ c) - np.sort(target @ c)) ** 2) for c in slices.T]
    return float(np.mean(distances))


def samples(name: str, *shape: int) -> torch.Tensor:
    return ranks.draw(name, *shape)


@pytest.mark.parametrize("target", ["rgg", "gg"])
def test_the_loss_is_the_authors_weighted_sum(target):
    method = RectifiedLpJEPA(p=1.5, mu=-0.5, num_slices=20, lamb_inv=3.0, lamb_reg=7.0, target=target)
    z = samples("z", 2, 30, 6).relu()
    loss, terms = method(z, Step(2, 5, 1))
    goals = RGG(p=1.5, mu=-0.5).gn_sample((2, 30, 6), generator(1, 5, "target")).double().numpy()
    goals = np.maximum(goals, 0) if target == "rgg" else goals
    slices = unit_slices(6, 20, derive_seed(1, 5, "slices")).double().numpy()
    regularizer = np.mean([by_sorting(view, goal, slices) for view, goal in zip(z.numpy(), goals, strict=True)])
    invariance = np.mean((z[0] - z[1]).numpy() ** 2)
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-12)
    assert terms["rdmreg"].item() == pytest.approx(regularizer, rel=1e-6)  # the target is drawn in fp32
    assert loss.item() == pytest.approx(3 * invariance + 7 * regularizer, rel=1e-6)


@pytest.mark.parametrize("kind", ["svd", "svd_bottom_half"])
def test_singular_slices_are_the_views_own(kind):
    z, method = samples("z", 2, 10, 5), RectifiedLpJEPA(num_slices=8, slice_kind=kind)
    _, terms = method(z, Step(2, 5, 1))
    goals = RGG(p=1.0, mu=0.0).sample((2, 10, 5), generator(1, 5, "target")).double().numpy()
    shared = unit_slices(5, 8, derive_seed(1, 5, "slices")).double().numpy()
    distances = []
    for view, goal in zip(z.numpy(), goals, strict=True):
        vectors = np.linalg.svd(view - view.mean(axis=0)).Vh[2 if kind == "svd_bottom_half" else 0 :]
        distances.append(by_sorting(view, goal, np.hstack([vectors.T, shared[:, len(vectors) :]])))
    assert terms["rdmreg"].item() == pytest.approx(np.mean(distances), rel=1e-6)


@pytest.mark.parametrize("sigma_mode", ["gn", "rgn"])
@pytest.mark.parametrize("target", ["rgg", "gg"])
def test_expected_statistics_match_draws_of_the_target(target, sigma_mode):
    method = RectifiedLpJEPA(p=2.0, mu=-1.0, sigma_mode=sigma_mode, target=target)
    distribution = RGG(p=2.0, mu=-1.0, sigma_mode=sigma_mode)
    draws = (distribution.sample if target == "rgg" else distribution.gn_sample)((400_000,), generator(0))
    assert method.expected()["std"] == pytest.approx(draws.std().item(), rel=0.01)
    assert method.expected()["nonzero_fraction"] == pytest.approx((draws != 0).float().mean().item(), abs=0.003)
