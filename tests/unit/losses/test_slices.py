"""Slices: uniform, reproducible unit directions, and singular vectors against NumPy.

Run: python -m pytest tests/unit/losses/test_slices.py
"""

import numpy as np
import pytest
import ranks
import torch

from jepa_train.losses.slices import singular_slices, unit_slices


def test_columns_have_length_one_and_no_preferred_direction():
    slices = unit_slices(8, 40_000, seed=0).double()
    torch.testing.assert_close(slices.square().sum(0), torch.ones(40_000, dtype=torch.float64), rtol=1e-6, atol=0)
    second_moment = slices @ slices.T / 40_000
    # Uniform on the sphere in R^8: E c c^T = I / 8, and each entry's standard error is below 1e-3.
    torch.testing.assert_close(second_moment, torch.eye(8, dtype=torch.float64) / 8, rtol=0, atol=4e-3)


def test_bf16_training_still_gets_fp32_directions():
    exact = unit_slices(512, 64, seed=0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(unit_slices(512, 64, seed=0), exact)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("m", "num"), [(40, 12), (40, 7), (40, 3), (5, 12), (5, 3), (7, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_slices_are_numpys_right_singular_vectors_then_random(m, num, dtype):
    z = (ranks.draw("z", m, 7) + 0.5).to(dtype)
    slices = singular_slices(z, num, seed=3)
    assert slices.dtype == dtype
    expected = np.linalg.svd(z.double().numpy(), full_matrices=False).Vh[:num]
    count = len(expected)
    alignment = np.abs(np.sum(slices.mT[:count].double().numpy() * expected, axis=1))  # the sign is arbitrary
    assert alignment == pytest.approx(np.ones(count), abs=1e-6 if dtype == torch.float32 else 1e-12)
    assert torch.equal(slices[:, count:].float(), unit_slices(7, num, seed=3)[:, count:])


def test_directions_without_a_singular_value_are_random():
    z = ranks.draw("left", 20, 3) @ ranks.draw("right", 3, 8)  # of rank 3
    slices, random = singular_slices(z.float(), 8, seed=0), unit_slices(8, 8, seed=0)
    within = torch.linalg.lstsq(z.mT, slices[:, :3].double()).solution  # columns as combinations of z's rows
    torch.testing.assert_close(z.mT @ within, slices[:, :3].double(), rtol=0, atol=1e-5)
    assert torch.equal(slices[:, 3:], random[:, 3:])


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("m", [3, 20])
def test_no_singular_vectors_leave_random_slices(m, value):
    assert torch.equal(singular_slices(torch.full((m, 6), value), 9, seed=0), unit_slices(6, 9, seed=0))
