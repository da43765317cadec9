"""Rectified LpJEPA: rdmreg against sorting in NumPy, the weighted sum, statistics of the target.

Run: python -m pytest tests/unit/methods/test_rectified_lpjepa.py
"""

import numpy as np
import pytest
import ranks
import torch

from jepa_train.base.seeds import derive_seed, generator
from jepa_train.losses.rgg import RGG
from jepa_train.losses.slices import singular_slices, unit_slices
from jepa_train.methods import RectifiedLpJEPA
from jepa_train.methods.base import Step
from jepa_train.methods.rectified_lpjepa import rdmreg


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


def test_singular_slices_are_those_of_both_views_together():
    z, method = samples("z", 2, 10, 5), RectifiedLpJEPA(num_slices=8, slice_kind="singular")
    _, terms = method(z, Step(2, 5, 1))
    slices = singular_slices(z.flatten(0, 1), 8, derive_seed(1, 5, "slices"))
    target = RGG(p=1.0, mu=0.0).sample((2, 10, 5), generator(1, 5, "target"))
    assert terms["rdmreg"].item() == pytest.approx(rdmreg(z, target, slices).item(), rel=1e-10)
    _, others = RectifiedLpJEPA(num_slices=8)(z, Step(2, 5, 1))
    assert terms["rdmreg"] != others["rdmreg"]


@pytest.mark.parametrize("sigma_mode", ["gn", "rgn"])
@pytest.mark.parametrize("target", ["rgg", "gg"])
def test_expected_statistics_match_draws_of_the_target(target, sigma_mode):
    method = RectifiedLpJEPA(p=2.0, mu=-1.0, sigma_mode=sigma_mode, target=target)
    distribution = RGG(p=2.0, mu=-1.0, sigma_mode=sigma_mode)
    draws = (distribution.sample if target == "rgg" else distribution.gn_sample)((400_000,), generator(0))
    assert method.expected()["std"] == pytest.approx(draws.std().item(), rel=0.01)
    assert method.expected()["nonzero_fraction"] == pytest.approx((draws != 0).float().mean().item(), abs=0.003)
