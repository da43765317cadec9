"""Waves in both forms against NumPy. The Triton kernels run on a GPU if there is one, else in Triton's interpreter.

Run: python -m pytest tests/unit/losses/test_ecf.py
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa_train.base.seeds import generator
from jepa_train.losses.ecf import EagerWaves, Knots, Waves, waves

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMS = ["eager", "triton"]
KNOTS = [Knots(first=0.625, stride=1, num=8), Knots(first=0.3, stride=2, num=5), Knots(first=2.5, stride=2, num=1)]


def make(form: str, x: Tensor, knots: Knots) -> Waves:
    if form == "eager":
        return EagerWaves(x, knots)
    pytest.importorskip("triton")
    from jepa_train.losses.ecf_triton import TritonWaves

    return TritonWaves(x.to(DEVICE), first=knots.first, stride=knots.stride, num=knots.num)


def exponentials(x: Tensor, knots: Knots) -> np.ndarray:
    """exp(i t x) at every knot in double precision: (num, ..., N, K)."""
    t = knots.first * (1 + knots.stride * np.arange(knots.num))
    return np.exp(1j * t.reshape(-1, *[1] * x.ndim) * x.double().numpy())


def draw(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=generator(name), dtype=dtype)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("knots", KNOTS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300, 33), (2, 2, 5, 64)], ids=str)
def test_means_and_series_match_the_exponentials_written_out(form, knots, shape):
    x = 3 * draw("x", *shape[:-2], shape[-1], shape[-2]).mT  # not contiguous
    coefficients = draw("c", knots.num, *shape[:-2], shape[-1], dtype=torch.complex64)
    expected = exponentials(x, knots)
    made = make(form, x, knots)
    np.testing.assert_allclose(made.means().cpu(), expected.mean(-2), atol=3e-6)
    series = (coefficients.unsqueeze(-2).numpy() * expected).sum(0).imag
    np.testing.assert_allclose(made.series(coefficients.to(made.means().device)).cpu(), series, atol=3e-5)


def test_a_cpu_and_float64_use_the_eager_form():
    assert isinstance(waves(torch.zeros(3, 2), KNOTS[0]), EagerWaves)
    assert isinstance(waves(torch.zeros(3, 2, dtype=torch.float64, device=DEVICE), KNOTS[0]), EagerWaves)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_kernels_on_a_gpu_are_used_and_repeat_bit_for_bit():
    x = 3 * draw("x", 2, 1000, 300)
    used = waves(x.to(DEVICE), KNOTS[0])
    assert not isinstance(used, EagerWaves)
    np.testing.assert_allclose(used.means().cpu(), exponentials(x, KNOTS[0]).mean(-2), atol=3e-6)
    assert torch.equal(used.means(), waves(x.to(DEVICE), KNOTS[0]).means())
