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
from jepa_train.losses import slices as slice_module
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


# --- values and slopes that public code returned for waves (see waves.py)

OFFICIAL = "YilunKuang/rectified-lp-jepa 5ae61ab, solo/losses/rectified_lpjepa.py:232"
SVD = "YilunKuang/rectified-lp-jepa 5ae61ab, solo/methods/rectified_lpjepa.py:110"
MINIMAL = "YilunKuang/rectified-lp-jepa e31c91c, MINIMAL.md:125"


def unit_columns(num: int, *, shift: float = 5.0) -> torch.Tensor:
    """Slices (6, num); their wave stood for torch.randn in the public code."""
    return functional.normalize(wave(num, 6, shift=shift), dim=1).mT


def targets(*shifts: float) -> torch.Tensor:
    """Samples (24, 6) of each view before ReLU, which stood for the public code's draws."""
    return 2 * RGG(p=1.0, mu=0.0).sigma * torch.stack([wave(24, 6, shift=shift) for shift in shifts])


def embeddings() -> torch.Tensor:
    return (0.3 + 1.5 * wave(2, 24, 6)).relu().requires_grad_()


def weighted(z: torch.Tensor, target: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
    return 25 * (z[0] - z[1]).square().mean() + 125 * rdmreg(z, target, slices)


@pytest.mark.parametrize(
    ("target", "slices", "value", "slope"),
    [
        pytest.param(targets(7, 8).relu(), unit_columns(20), 38.5733256, -38.3648618, id=f"{OFFICIAL} rectified"),
        pytest.param(targets(7, 8), unit_columns(20), 81.4091473, -12.5274582, id=f"{OFFICIAL} not rectified"),
        # the earlier minimal example: slices for each view, and one target
        pytest.param(
            *(targets(7)[0].relu(), torch.stack([unit_columns(20), unit_columns(20, shift=9.0)])),
            *(35.0080486, -36.2823024),
            id=MINIMAL,
        ),
    ],
)
def test_the_weighted_sum_gives_the_values_of_public_code(target, slices, value, slope):
    z = embeddings()
    assert value_and_slope(weighted(z, target, slices), z) == pytest.approx((value, slope), rel=1e-6)


@pytest.mark.parametrize(
    ("num", "singular", "bottom_half", "value", "slope"),
    [
        pytest.param(6, 6, False, 41.3779317, -39.0961091, id=f"{SVD} torch_svd_and_random, all of them"),
        pytest.param(20, 6, False, 40.8759275, -40.379812, id=f"{SVD} torch_svd_and_random"),
        pytest.param(3, 3, True, 33.895486, -31.1942413, id=f"{SVD} torch_svd_bottom_half_eigen, all of them"),
        pytest.param(20, 3, True, 38.4914989, -38.5874069, id=f"{SVD} torch_svd_bottom_half_eigen_and_random"),
    ],
)
def test_singular_slices_give_the_values_of_public_code(monkeypatch, num, singular, bottom_half, value, slope):
    random = torch.cat([torch.ones(6, singular), unit_columns(num - singular)], dim=1)
    monkeypatch.setattr(slice_module, "unit_slices", lambda *_, **__: random)
    z = embeddings()
    slices = singular_slices(z, num, 0, bottom_half=bottom_half)
    found = value_and_slope(weighted(z, targets(7, 8).relu(), slices), z)
    assert found == pytest.approx((value, slope), rel=1e-6)
