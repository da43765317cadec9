"""SimCLR and NCL: nt_xent against the paper's sum over pairs, and rows of zeros.

Run: python -m pytest tests/unit/methods/test_simclr.py
"""

import math

import pytest
import ranks
import torch

from jepa_train.methods import NCL, SimCLR
from jepa_train.methods.base import Step
from jepa_train.methods.simclr import nt_xent


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
