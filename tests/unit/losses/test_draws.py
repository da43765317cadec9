"""Counter-based draws against Random123's known answers, Philox in NumPy and the distributions.

The kernels run on a GPU if there is one, else in Triton's interpreter.
Run: python -m pytest tests/unit/losses/test_draws.py
"""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from jepa_train.losses.rgg import RGG
from jepa_train.losses.slices import singular_slices, unit_slices
from jepa_train.methods.base import Step

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from jepa_train.losses import draws_triton  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SEED, STEP = 0x299F31D0A4093822, 7
_words = draws_triton._words


def count(step: int = STEP) -> Tensor:
    return torch.tensor(step, device=DEVICE)


@triton.jit
def _four_words(out_ptr, index, draw, count, seed):
    w0, w1, w2, w3 = _words(index + tl.arange(0, 1), draw, count, seed)
    place = out_ptr + tl.arange(0, 1)
    tl.store(place, w0.to(tl.int64))
    tl.store(place + 1, w1.to(tl.int64))
    tl.store(place + 2, w2.to(tl.int64))
    tl.store(place + 3, w3.to(tl.int64))


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_words_are_the_known_answers_of_random123(counter: str, key: str, words: str) -> None:
    """philox4x32-10 in Random123's tests/kat_vectors; 64-bit numbers have the low half first."""
    low, high, draw, step = (int(word, 16) for word in counter.split())
    numbers = [torch.tensor(number, dtype=torch.int64, device=DEVICE) for number in (draw, step)]
    index, seed = (torch.tensor([a, b]).to(torch.int32).view(torch.int64) for a, b in ((low, high), _halves(key)))
    out = torch.empty(4, dtype=torch.int64, device=DEVICE)
    _four_words[(1,)](out, index.item(), *(number.item() for number in numbers), seed.item())
    assert [f"{word:08x}" for word in out.tolist()] == words.split()


def _halves(key: str) -> tuple[int, int]:
    low, high = (int(word, 16) for word in key.split())
    return low, high


def philox(index: np.ndarray, draw: int = 0, *, step: int = STEP, seed: int = SEED) -> np.ndarray:
    """Philox4x32-10 in NumPy: (...) indices -> (..., 4) words."""
    mask = np.uint64(2**32 - 1)
    index = index.astype(np.uint64)
    a, b = index & mask, index >> np.uint64(32)
    c, d = np.full_like(a, draw), np.full_like(a, step)
    for turn in range(10):
        low, high = ((seed >> shift) + turn * step_of_key & (2**32 - 1) for shift, step_of_key in KEY_STEPS)
        x, y = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (
            (y >> np.uint64(32)) ^ b ^ np.uint64(low),
            y & mask,
            (x >> np.uint64(32)) ^ d ^ np.uint64(high),
            x & mask,
        )
    return np.stack([a, b, c, d], -1)


KEY_STEPS = ((0, 0x9E3779B9), (32, 0xBB67AE85))


def uniform(words: np.ndarray) -> np.ndarray:
    return (words + 0.5) / 2**32


def normals(words: np.ndarray) -> np.ndarray:
    """Box and Muller: four words -> four numbers, flattened."""
    u = uniform(words)
    radius = np.sqrt(-2 * np.log(u[..., ::2]))
    waves = np.exp(2j * np.pi * u[..., 1::2])
    return np.stack([radius * waves.real, radius * waves.imag], -1).reshape(*u.shape[:-2], -1)


@pytest.mark.parametrize(("dim", "num"), [(1, 5), (30, 70), (600, 3)])
def test_slices_are_the_normalised_normal_numbers_of_philox(dim: int, num: int) -> None:
    found = unit_slices(dim, num, SEED, count()).mT.cpu()
    index = (np.arange(num)[:, None] << 32) + np.arange(-(-dim // 4))
    rows = normals(philox(index))[:, :dim]
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.is_contiguous()


def gamma(alpha: float, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Marsaglia and Tsang's draws of Gamma(alpha), alpha at least 1, and the spare word of the accepted round."""
    shift = alpha - 1 / 3
    values, spare = np.full(len(index), np.nan), np.zeros(len(index), np.uint64)
    for draw in range(12):
        words = philox(index, draw)
        x = normals(words)[::4]
        cube = (1 + x / np.sqrt(9 * shift)) ** 3
        with np.errstate(invalid="ignore"):
            accepted = (cube > 0) & (np.log(uniform(words[:, 2])) < x * x / 2 + shift * (1 - cube + np.log(cube)))
        chosen = np.isnan(values) & accepted
        values[chosen], spare[chosen] = shift * cube[chosen], words[chosen, 3]
    return values, spare


@pytest.mark.parametrize("p", [0.4, 1, 1.5, 2])
def test_targets_are_the_transformed_words_of_philox(p: float) -> None:
    rgg, shape = RGG(p=p, mu=0.3), (2, 7, 50)
    found = rgg.target(shape, SEED, count(), rectified=False).cpu().flatten().double().numpy()
    if p == 2:
        g = normals(philox(np.arange(175)))
    elif p == 1:
        words = philox(np.arange(175)).reshape(-1)
        g = -np.log(uniform((words << np.uint64(1)) % 2**32)) * np.where(words >> np.uint64(31), -1, 1)
    else:
        value, spare = gamma(1 / p + (p > 1), np.arange(700))
        value *= uniform((spare << np.uint64(1)) % 2**32) ** p if p > 1 else 1
        g = (p * value) ** (1 / p) * np.where(spare >> np.uint64(31), -1, 1)
    np.testing.assert_allclose(found, 0.3 + rgg.sigma * g, rtol=2e-5, atol=2e-6)
    rectified = rgg.target(shape, SEED, count()).cpu().flatten().numpy()
    assert np.array_equal(rectified, np.maximum(found, 0).astype(np.float32))


@pytest.mark.parametrize("p", [0.05, 0.25, 0.5, 0.75, 1, 1.5, 2, 8])
def test_targets_follow_the_distribution(p: float) -> None:
    """Kolmogorov and Smirnov's test, the tails, the moments' closed forms and the fraction above zero."""
    size = 8192
    rgg = RGG(p=p, mu=0.0 if p == 0.05 else 0.25)  # beside .25 most draws of p = .05 are below fp32's rounding
    draws = rgg.target((size,), SEED, count(), rectified=False).cpu().double().numpy()
    law = scipy.stats.gennorm(p, rgg.mu, rgg.sigma * p ** (1 / p))
    assert scipy.stats.kstest(draws, law.cdf).pvalue > 0.01
    for level in (1e-3, 0.5, 1 - 1e-3):
        assert abs((draws < law.ppf(level)).sum() - size * level) < 4 * np.sqrt(size * level * (1 - level))
    positive = np.maximum(draws, 0)
    share = rgg.nonzero_fraction
    assert abs((positive > 0).mean() - share) < 4 * np.sqrt(share * (1 - share) / size)
    assert abs(positive.mean() - rgg.mean) < 4 * np.sqrt(rgg.variance / size)
    if p >= 0.5:  # for smaller p the sample's variance itself varies too much
        assert positive.var() == pytest.approx(rgg.variance, rel=0.12)


def test_steps_purposes_and_seeds_draw_independently() -> None:
    sources = [Step(2, 0, seed, count=count(step)) for seed, step in ((0, 3), (0, 4), (1, 3), (0, 2**32 - 1))]
    rows = [unit_slices(64, 32, *step.draws(purpose)).flatten() for step in sources for purpose in ("slices", "target")]
    correlations = np.corrcoef(torch.stack(rows).cpu().numpy())
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 4 / np.sqrt(64 * 32)
    directions = torch.stack(rows).view(-1, 64).double().cpu()
    second_moment = directions.mT @ directions / len(directions)
    torch.testing.assert_close(second_moment, torch.eye(64, dtype=torch.float64) / 64, rtol=0, atol=7e-3)


def test_the_count_is_read_at_the_launch_and_rows_do_not_depend_on_their_number() -> None:
    here = count()
    first = unit_slices(10, 40, SEED, here)
    assert torch.equal(first, unit_slices(10, 40, SEED, here))
    assert torch.equal(first[:, :9], unit_slices(10, 9, SEED, here))
    here += 1
    assert not torch.equal(first, unit_slices(10, 40, SEED, here))
    z = torch.zeros(2, 3, 10, device=DEVICE)
    assert torch.equal(singular_slices(z, 40, SEED, count())[0, :, 3:], first[:, 3:])


def test_without_a_count_the_number_of_the_step_decides() -> None:
    seeds = {Step(2, number, seed).draws(purpose) for number in (0, 1) for seed in (0, 1) for purpose in ("a", "b")}
    assert len(seeds) == 8
    assert {count for _, count in seeds} == {None}
