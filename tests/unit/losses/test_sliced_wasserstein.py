"""Sliced Wasserstein distance and its gradient against sorting under autograd; chunks and threads of rank matching.

Run: python -m pytest tests/unit/losses/test_sliced_wasserstein.py
"""

import multiprocessing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import draw

from jepa_train.losses import rank_matching
from jepa_train.losses import sliced_wasserstein as module
from jepa_train.losses.matmul import tf32_products
from jepa_train.losses.sliced_wasserstein import sliced_wasserstein
from jepa_train.losses.slices import unit_slices


def plain(z: torch.Tensor, target: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
    """The authors' form: both sorted along the samples, under autograd."""
    return ((z @ slices).sort(dim=-2).values - (target @ slices).sort(dim=-2).values).square().mean()


def value_and_gradient(distance, z: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = z.detach().requires_grad_()
    value = distance(leaf, *rest)
    return value.detach(), torch.autograd.grad(3 * value, leaf)[0]


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    views=st.sampled_from([(), (1,), (2,), (2, 2)]),
    n=st.integers(1, 40),
    d=st.integers(1, 12),
    k=st.integers(1, 40),
    own=st.booleans(),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    transposed=st.booleans(),
    block=st.sampled_from([1, 100, 2**20]),
    seed=st.integers(0, 1000),
)
def test_value_and_gradient_are_the_plain_forms(views, n, d, k, own, scale, transposed, block, seed):
    z = scale * draw(f"z{seed}", *views, n, d)
    z = z.mT.contiguous().mT if transposed else z
    target, slices = draw(f"target{seed}", *(views if own else ()), n, d), unit_slices(d, k, seed).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module._BLOCK, "cpu", block)
        value, gradient = value_and_gradient(sliced_wasserstein, z, target, slices.contiguous())
        value32, gradient32 = value_and_gradient(sliced_wasserstein, z.float(), target.float(), slices.float())
    expected, exact = value_and_gradient(plain, z, target, slices)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, exact, rtol=1e-9, atol=1e-12 * max(scale, 1))
    # In fp32 two projections closer than a rounding may change ranks, which the gradient notices.
    torch.testing.assert_close(value32.double(), expected, rtol=1e-4, atol=1e-6)
    assert (gradient32 - exact).norm() <= 1e-3 * exact.norm() + 1e-6


def test_a_target_of_one_dimension_is_its_own_projection():
    z, target, slices = draw("z", 3, 20, 6), draw("target", 20), unit_slices(6, 30, 0).double()
    found = value_and_gradient(sliced_wasserstein, z, target, slices)
    expected = value_and_gradient(
        lambda z: ((z @ slices).sort(dim=1).values - target.sort().values[:, None]).square().mean(), z
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_equal_rows_have_the_plain_forms_value_and_total_gradient():
    """Rows of zeros, as from ReLU, project equally: their order is arbitrary, the sum of their gradients is not."""
    z, target, slices = draw("z", 20, 6).relu(), draw("target", 20, 6).relu(), unit_slices(6, 30, 0).double()
    z[::2] = 0
    value, gradient = value_and_gradient(sliced_wasserstein, z, target, slices)
    expected, exact = value_and_gradient(plain, z, target, slices)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient[1::2], exact[1::2], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(gradient[::2].sum(0), exact[::2].sum(0), rtol=1e-10, atol=1e-14)


def test_chunks_and_threads_change_no_difference_by_rank(monkeypatch):
    x, y = draw("x", 50, 2, 31).float(), draw("y", 50, 2, 31).float()
    whole = rank_matching.differences_by_rank(x.clone(), y.clone())
    monkeypatch.setattr(rank_matching, "_CHUNK", 200)  # four rows, and two in the last chunk
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(rank_matching.differences_by_rank(x.clone(), y.clone()), whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_value_and_gradient():
    z, target, slices = draw("z", 2, 60, 12), draw("target", 2, 60, 12), unit_slices(12, 90, seed=0)
    expected, exact = value_and_gradient(sliced_wasserstein, z, target, slices)
    value, gradient = value_and_gradient(sliced_wasserstein, z.cuda(), target.cuda(), slices.cuda())
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient.cpu(), exact, rtol=1e-9, atol=1e-12)


def test_products_are_in_tf32_inside_the_block_alone() -> None:
    setting = torch.backends.cuda.matmul
    before = setting.fp32_precision
    with tf32_products(False):
        assert setting.fp32_precision == before
    with tf32_products(True):
        assert setting.fp32_precision == "tf32"
    assert setting.fp32_precision == before


def test_a_forked_process_sorts_too() -> None:
    """It inherits the pool of its parent, without the threads."""
    x, y = torch.randn(3, 1, 8), torch.randn(3, 1, 8)
    rank_matching.differences_by_rank(x.clone(), y.clone())
    process = multiprocessing.get_context("fork").Process(target=rank_matching.differences_by_rank, args=(x, y))
    process.start()
    process.join(30)
    hangs = process.is_alive()
    process.kill()
    assert (hangs, process.exitcode) == (False, 0)
