"""Gradients of the regularizers at a shrunk z, against finite differences.

Run: python -m pytest tests/unit/evaluation/test_collapse.py
"""

import dataclasses

import pytest
import ranks
import torch

from jepa_train.config.presets import DIGITS
from jepa_train.evaluation.collapse import collapse_gradients
from jepa_train.evaluation.glossary import GLOSSARY
from jepa_train.methods import METHODS, LeJEPA, RectifiedLpJEPA, VICReg, VISReg
from jepa_train.methods.base import Method, Step


def gradients(method: Method, z: torch.Tensor, *, batch: int = 20) -> list[float]:
    config = dataclasses.replace(DIGITS, method=method, global_batch=batch, seed=3)
    found = collapse_gradients(z, config)
    assert set(found) <= set(GLOSSARY)
    return [found[f"gradient_at_{factor}"] for factor in ("1", "0.1", "0.01", "0.001")]


def test_the_gradient_is_that_of_finite_differences_without_the_invariance() -> None:
    """Of the first 20 rows; the invariance has weight, but no gradient."""
    z, method = 0.5 * ranks.draw("z", 25, 3), VICReg(lamb_inv=25.0, lamb_var=2.0, lamb_cov=3.0)
    pair = 0.1 * z[:20].repeat(2, 1, 1)
    squares = 0.0
    for place in range(pair.numel()):
        ends = []
        for sign in (1, -1):
            moved = pair.clone()
            moved.view(-1)[place] += sign * 1e-6
            ends.append(method(moved, Step(2, 0, 3))[0].item())
        squares += ((ends[0] - ends[1]) / 2e-6) ** 2
    assert gradients(method, z)[1] == pytest.approx(squares**0.5, rel=1e-4)


def test_sigreg_lets_go_of_a_collapsed_embedding_visreg_and_rdmreg_do_not() -> None:
    z = ranks.draw("z", 20, 5)
    *_, small, smaller = gradients(LeJEPA(num_slices=64), z)
    assert smaller == pytest.approx(0.1 * small, rel=1e-3)
    *_, small, smaller = gradients(VISReg(num_slices=64, lamb_shape=0.0), z)
    assert smaller == pytest.approx(small, rel=0.02)
    *_, small, smaller = gradients(RectifiedLpJEPA(num_slices=64), z.relu())
    assert smaller == pytest.approx(small, rel=0.02)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_finite_gradients_from_tensors_of_inference_mode(name: str) -> None:
    with torch.inference_mode():
        z = ranks.draw("z", 12, 5).float().relu()
    assert all(value > 0 for value in gradients(METHODS[name](), z, batch=64))
