"""VICReg, SimCLR and NCL against their papers' formulas in loops, and the values of public code.

Run: python -m pytest tests/parity/test_baselines.py
"""

import math

import numpy as np
import pytest
import ranks
import torch
from torch.nn import functional
from waves import value_and_slope, wave

from jepa_train.methods import NCL, SimCLR, VICReg
from jepa_train.methods.base import Step
from jepa_train.methods.simclr import nt_xent
from jepa_train.methods.vicreg import covariance_penalty
from jepa_train.model.heads import RepReLU


def by_loops(z: torch.Tensor, temperature: float) -> float:
    """SimCLR, Eq. 1, pair by pair: every view is an anchor once."""
    rows = [(image, (view / view.norm()).tolist()) for part in z for image, view in enumerate(part)]
    total = 0.0
    for place, (image, anchor) in enumerate(rows):
        scores = {
            other: math.exp(sum(a * b for a, b in zip(anchor, row, strict=True)) / temperature)
            for other, (_, row) in enumerate(rows)
            if other != place
        }
        (positive,) = (other for other in scores if rows[other][0] == image)
        total -= math.log(scores[positive] / sum(scores.values()))
    return total / len(rows)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_nt_xent_matches_the_papers_sum_over_pairs(temperature):
    z = ranks.draw("z", 2, 7, 4) * torch.linspace(1e-3, 1e3, 14, dtype=torch.float64).view(2, 7, 1)
    loss, terms = SimCLR(temperature=temperature)(z, Step(2, 0, 0))
    assert loss.item() == pytest.approx(by_loops(z, temperature), rel=1e-12)
    assert terms == {}


def test_views_of_zeros_have_cosine_0_and_bounded_gradients():
    z = ranks.draw("z", 2, 7, 4).relu()
    z[0, 3] = 0
    z.requires_grad_()
    loss = nt_xent(z, temperature=0.2)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.abs().max() < 1e3  # functional.normalize's is 1e12


def test_ncl_is_simclr_with_an_output_activation():
    z = ranks.draw("z", 2, 7, 4).relu()  # no view of which is all zeros
    for nonneg in ("relu", "rep_relu"):
        method = NCL(temperature=0.3, nonneg=nonneg)
        assert method.output_activation == nonneg
        assert method(z, Step(2, 0, 0))[0].item() == pytest.approx(by_loops(z, 0.3), rel=1e-12)
    assert SimCLR().output_activation == "none"


def test_vicreg_matches_loops_over_numpys_covariance():
    z = 0.8 * ranks.draw("z", 2, 30, 6) @ ranks.draw("mixing", 6, 6)
    z[..., 2] *= 0.1  # below the hinge
    variance, covariance = 0.0, 0.0
    for view in z.numpy():
        table = np.cov(view, rowvar=False)
        deviations = np.sqrt(np.diag(table) + 1e-4)
        assert deviations.min() < 1 < deviations.max()
        variance += np.mean([max(0.0, 1 - deviation) for deviation in deviations]) / 2
        covariance += sum(table[i, j] ** 2 for i in range(6) for j in range(6) if i != j) / 6
    invariance = np.mean((z[0] - z[1]).numpy() ** 2)
    loss, terms = VICReg(lamb_inv=3.0, lamb_var=5.0, lamb_cov=2.0)(z, Step(2, 0, 0))
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-12)
    assert terms["variance"].item() == pytest.approx(variance, rel=1e-12)
    assert terms["covariance"].item() == pytest.approx(covariance, rel=1e-10)
    assert loss.item() == pytest.approx(3 * invariance + 5 * variance + 2 * covariance, rel=1e-10)


def test_covariance_keeps_fp32_when_nearly_white():
    z = ranks.draw("nearly white", 2, 4096, 64)
    exact = covariance_penalty(z)
    assert covariance_penalty(z.float()).tolist() == pytest.approx(exact.tolist(), rel=1e-4)


# --- values and slopes that public code returned for waves (see waves.py)

SOLO = "vturrisi/solo-learn 9187ea3 and YilunKuang/rectified-lp-jepa 5ae61ab, solo/losses"
LIGHTLY = "lightly-ai/lightly e8d317f, lightly/loss"
SPT = "rbalestr-lab/stable-pretraining 9aa93f8, stable_pretraining/losses/joint_embedding.py"
NCL_SOURCE = "YilunKuang/rectified-lp-jepa 5ae61ab, solo/methods/ncl.py:184-212"


@pytest.mark.parametrize(
    ("lamb_var", "value", "slope"),
    [
        # solo-learn sums the variance over the views, the others average it
        pytest.param(50.0, 48.8931844, -16.1525765, id=f"{SOLO}/vicreg.py:83 25/25/1"),
        pytest.param(25.0, 45.91981, -20.7825987, id=f"{LIGHTLY}/vicreg_loss.py:72 25/25/1"),
        pytest.param(25.0, 45.91981, -20.7825987, id=f"{SPT}:42 VICRegLoss 25/25/1"),
    ],
)
def test_vicreg_gives_the_values_of_public_code(lamb_var, value, slope):
    scale = torch.tensor([1.0, 1.0, 0.5, 1.0, 1.0, 1.0], dtype=torch.float64)
    z = (0.9 * scale * (0.3 + 1.5 * wave(2, 24, 6))).requires_grad_()
    loss, _ = VICReg(lamb_var=lamb_var)(z, Step(2, 0, 0))
    assert value_and_slope(loss, z) == pytest.approx((value, slope), rel=1e-6)


@pytest.mark.parametrize(
    ("method", "activation", "shift", "value", "slope"),
    [
        pytest.param(SimCLR(), lambda z: z, 0.3, 5.91186857, 0.335273384, id=f"{SOLO}/simclr.py:25"),
        pytest.param(SimCLR(), lambda z: z, 0.3, 5.91186857, 0.335273384, id=f"{LIGHTLY}/ntx_ent_loss.py:16"),
        pytest.param(SimCLR(), lambda z: z, 0.3, 5.91186857, 0.335273384, id=f"{SPT}:292 NTXentLoss"),
        pytest.param(NCL(), functional.relu, 0.8, 4.57146776, 0.342403447, id=f"{NCL_SOURCE} relu"),
        pytest.param(NCL(nonneg="rep_relu"), RepReLU(), 0.8, 4.57146776, 0.491131674, id=f"{NCL_SOURCE} rep_relu"),
    ],
)
def test_contrastive_losses_give_the_values_of_public_code(method, activation, shift, value, slope):
    z = (shift + 1.5 * wave(2, 24, 6)).requires_grad_()
    loss, _ = method(activation(z), Step(2, 0, 0))  # temperature .2
    assert value_and_slope(loss, z) == pytest.approx((value, slope), rel=1e-6)
