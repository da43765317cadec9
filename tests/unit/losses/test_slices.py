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


def right_singular(view: np.ndarray) -> np.ndarray:
    """All right singular vectors of a centered view, by NumPy: (min(N, D), D), the largest first."""
    return np.linalg.svd(view - view.mean(axis=0), full_matrices=False).Vh


@pytest.mark.parametrize(("n", "num"), [(40, 12), (40, 7), (40, 3), (5, 12), (5, 3), (7, 7)])
@pytest.mark.parametrize("bottom_half", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_slices_are_each_views_right_singular_vectors_then_shared_random_ones(n, num, bottom_half, dtype):
    """As in the authors' Projections.get_projection_vectors, written with NumPy. The mean, .5 to 1.5, has no part."""
    z = (ranks.draw("z", 2, n, 7) + torch.tensor([0.5, 1.5])[:, None, None]).to(dtype)
    slices = singular_slices(z, num, seed=3, bottom_half=bottom_half)
    assert (slices.dtype, slices.shape) == (dtype, (2, 7, num))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    for view, columns in zip(z.double().numpy(), slices.double().numpy(), strict=True):
        vectors = right_singular(view)
        exist = len(vectors) - (n <= 7)  # n centered samples have n - 1 directions; LAPACK makes up another one
        first = len(vectors) // 2 if bottom_half else 0
        count = min(len(vectors) - first, num)
        own = columns[:, :count]
        assert own.T @ own == pytest.approx(np.eye(count), abs=tolerance)
        same = np.abs(np.sum(own.T * vectors[first : first + count], axis=1))  # the sign is arbitrary
        assert same[: exist - first] == pytest.approx(1, abs=tolerance)
        assert np.abs((view - view.mean(axis=0)) @ own[:, exist - first :]) == pytest.approx(0, abs=10 * tolerance)
        random = unit_slices(7, num, seed=3)[:, count:]
        assert np.array_equal(columns[:, count:].astype(np.float32), random.numpy())


@pytest.mark.parametrize("value", [0.0, 2.0, float("nan"), float("inf")])
@pytest.mark.parametrize("n", [3, 20])
def test_slices_of_views_without_singular_values_are_orthonormal(n, value):
    slices = singular_slices(torch.full((2, n, 6), value), 9, seed=0)
    own = slices[..., : min(n, 6)]
    torch.testing.assert_close(own.mT @ own, torch.eye(min(n, 6)).expand(2, -1, -1))
    assert torch.equal(slices[0], slices[1])
