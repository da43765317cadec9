"""Differences by rank against Python's sort: ties, values that are not finite, chunks and threads.

Run: python -m pytest tests/unit/losses/test_rank_matching.py
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import draw

from jepa_train.losses import rank_matching
from jepa_train.losses.rank_matching import differences_by_rank

sides = st.integers(1, 9)


def by_hand(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Row by row, with Python's sort; ties in x keep their order."""
    result = torch.empty_like(x)
    for m in range(x.shape[0]):
        for v in range(x.shape[1]):
            wanted = sorted(y[m, v % y.shape[1]].tolist())
            for rank, n in enumerate(sorted(range(x.shape[2]), key=x[m, v].tolist().__getitem__)):
                result[m, v, n] = x[m, v, n] - wanted[rank]
    return result


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    shape=st.tuples(sides, st.integers(1, 3), st.integers(1, 40)),
    shared=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    scale=st.sampled_from([1e-40, 1e-6, 1.0, 1e6, 1e30]),
    seed=st.integers(0, 1000),
)
def test_every_value_is_compared_with_the_value_of_its_rank(shape, shared, dtype, scale, seed):
    x, y = (draw(f"{name}{seed}", *shape).mul(scale).to(dtype) for name in "xy")
    y = y[:, :1].contiguous() if shared else y
    torch.testing.assert_close(differences_by_rank(x.clone(), y.clone()), by_hand(x, y), rtol=0, atol=0)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    values=st.lists(st.sampled_from([-1.0, -0.0, 0.0, 1e-45, 1.1754942e-38, 1.0, 1.0000001]), min_size=1, max_size=30)
)
def test_ties_share_the_ranks_of_their_value_between_them(values):
    x, y = torch.tensor(values)[None, None], torch.arange(float(len(values)))[None, None]
    met = (x - differences_by_rank(x.clone(), y.clone())).flatten()  # the y that each x met, up to rounding
    for value in set(values):
        mine = x.flatten() == value
        low = int((x < value).sum())
        expected = torch.arange(low, low + int(mine.sum()), dtype=torch.float32)
        torch.testing.assert_close(met[mine].sort().values, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_propagate(value, dtype):
    for place in range(5):
        x, y = draw("x", 3, 2, 5).to(dtype), draw("y", 3, 1, 5).to(dtype)
        x[1, 1, place] = value
        assert not differences_by_rank(x, y).isfinite().all()


def test_chunks_and_threads_change_nothing(monkeypatch):
    x, y = draw("x", 50, 2, 31).float(), draw("y", 50, 2, 31).float()
    whole = differences_by_rank(x.clone(), y.clone())
    monkeypatch.setattr(rank_matching, "_CHUNK", 200)  # four rows, and two in the last chunk
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(differences_by_rank(x.clone(), y.clone()), whole)
