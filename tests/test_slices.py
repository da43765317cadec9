import torch
import two_ranks

from jepa_train.randomness import derive_seed
from jepa_train.slices import unit_slices


def test_columns_have_length_one_and_no_preferred_direction():
    slices = unit_slices(8, 40_000, seed=0).double()
    torch.testing.assert_close(slices.square().sum(0), torch.ones(40_000, dtype=torch.float64), rtol=1e-6, atol=0)
    second_moment = slices @ slices.T / 40_000
    # Uniform on the sphere in R^8: E c c^T = I / 8, and each entry's standard error is below 1e-3.
    torch.testing.assert_close(second_moment, torch.eye(8, dtype=torch.float64) / 8, rtol=0, atol=4e-3)


def test_slices_are_a_function_of_seed_and_step():
    def at(seed: int, step: int) -> torch.Tensor:
        return unit_slices(5, 3, derive_seed(seed, step, "slices"))

    torch.manual_seed(1)
    first = at(0, 0)
    torch.manual_seed(2)
    assert torch.equal(first, at(0, 0))
    assert not torch.equal(first, at(0, 1))
    assert not torch.equal(first, at(1, 0))


def test_one_dimension_gives_signs():
    assert set(unit_slices(1, 1000, seed=0).flatten().tolist()) == {-1.0, 1.0}


def test_a_draw_of_exact_zeros_gives_a_unit_vector(monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(*shape))
    assert unit_slices(3, 2, seed=0).T.tolist() == [[1.0, 0.0, 0.0]] * 2


def test_bf16_training_still_gets_fp32_directions():
    exact = unit_slices(512, 64, seed=0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(unit_slices(512, 64, seed=0), exact)
    finally:
        torch.set_default_dtype(torch.float32)


def test_both_ranks_have_the_same_slices():
    first, second = (rank["slices"] for rank in two_ranks.both_ranks())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
