"""Waves against NumPy. tests/unit/losses/test_kernels.py has the form of a GPU.

Run: python -m pytest tests/unit/losses/test_ecf.py
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa_train.base.seeds import generator
from jepa_train.losses.ecf import Knots, Waves

KNOTS = [Knots(first=0.625, stride=1, num=8), Knots(first=0.3, stride=2, num=5), Knots(first=2.5, stride=2, num=1)]


def exponentials(x: Tensor, knots: Knots) -> np.ndarray:
    """exp(i t x) at every knot in double precision: (num, ..., N, K)."""
    t = knots.first * (1 + knots.stride * np.arange(knots.num))
    return np.exp(1j * t.reshape(-1, *[1] * x.ndim) * x.double().numpy())


def draw(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=generator(name), dtype=dtype)


@pytest.mark.parametrize("knots", KNOTS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300, 33), (2, 2, 5, 64)], ids=str)
def test_means_and_series_match_the_exponentials_written_out(shape, knots):
    x = 3 * draw("x", *shape[:-2], shape[-1], shape[-2]).mT  # not contiguous
    coefficients = draw("c", knots.num, *shape[:-2], shape[-1], dtype=torch.complex64)
    expected = exponentials(x, knots)
    waves = Waves(x, knots)
    np.testing.assert_allclose(waves.means(), expected.mean(-2), atol=3e-6)
    series = (coefficients.unsqueeze(-2).numpy() * expected).sum(0).imag
    np.testing.assert_allclose(waves.series(coefficients), series, atol=3e-5)
