"""Rectified LpJEPA: rdmreg and the weighted sum against sorting in NumPy and the values of public code.

Run: python -m pytest tests/parity/test_rdmreg.py
"""

import numpy as np
import pytest
import ranks
import torch
from torch.nn import functional
from waves import value_and_slope, wave

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


# --- values and slopes that public code returned for waves (see waves.py)

OFFICIAL = "YilunKuang/rectified-lp-jepa 5ae61ab, solo/losses/rectified_lpjepa.py:232"
SCALE = RGG(p=1.0, mu=0.0).sigma


def unit_rows(*, shift: float) -> torch.Tensor:
    """Slices (6, 20); their wave stood for torch.randn in the public code."""
    return functional.normalize(wave(20, 6, shift=shift), dim=1).mT


def targets(*shifts: float, rectified: bool = True) -> torch.Tensor:
    """One sample (24, 6) per shift, which stood for the public code's draws."""
    drawn = torch.stack([2 * SCALE * wave(24, 6, shift=shift) for shift in shifts])
    return drawn.relu() if rectified else drawn


SHARED, OWN = (5.0, 5.0), (5.0, 9.0)


@pytest.mark.parametrize(
    ("slices", "target", "value", "slope"),
    [
        pytest.param(SHARED, targets(7, 8), 38.5733256, -38.3648618, id=f"{OFFICIAL} rectified_lp_distribution"),
        pytest.param(SHARED, targets(7, 8, rectified=False), 81.4091473, -12.5274582, id=f"{OFFICIAL} lp_distribution"),
        # the minimal example before 5ae61ab: slices for each view, and one target
        pytest.param(
            OWN,
            targets(7, 7),
            35.0080486,
            -36.2823024,
            id="YilunKuang/rectified-lp-jepa e31c91c, MINIMAL.md, rdmreg_loss",
        ),
    ],
)
def test_the_weighted_sum_gives_the_values_of_public_code(slices, target, value, slope):
    z = (0.3 + 1.5 * wave(2, 24, 6)).relu().requires_grad_()
    parts = [rdmreg(z[v : v + 1], target[v : v + 1], unit_rows(shift=slices[v])) for v in (0, 1)]
    loss = 25 * (z[0] - z[1]).square().mean() + 125 * (parts[0] + parts[1]) / 2
    assert value_and_slope(loss, z) == pytest.approx((value, slope), rel=1e-6)
    if slices is SHARED:
        joint = 25 * (z[0] - z[1]).square().mean() + 125 * rdmreg(z, target, unit_rows(shift=5.0))
        assert value_and_slope(joint, z) == pytest.approx((value, slope), rel=1e-6)
