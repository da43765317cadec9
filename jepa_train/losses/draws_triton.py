"""Random slices and targets on a GPU: one Triton launch each, counter-based, the step's number read on the device.

Numbers are a pure function of (seed, count, index), by Philox4x32-10 (Salmon et al. 2011, Random123). There is no
state, a captured graph draws anew at each replay, and neither the number of ranks nor the model of the GPU changes a
draw; torch's generators map numbers to threads by the number of multiprocessors.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from jepa_train.base.kernel_launch import launch

_SIZE = 2048  # numbers per program, half of it for Gamma draws, which need twice the registers
_PER_WARP = 512
_ROUNDS = tl.constexpr(12)  # at most, of a Gamma draw: each rejects less than 5 %, all of them less than 3e-16


def unit_rows(num: int, dim: int, seed: int, count: Tensor) -> Tensor:
    """(num, dim) fp32 rows of length 1, uniform on the sphere, on the device of count. A row depends on its index, dim,
    seed and count alone."""
    out = torch.empty(num, dim, dtype=torch.float32, device=count.device)
    quads = triton.next_power_of_2(triton.cdiv(dim, 4))
    rows = max(_SIZE // (4 * quads), 1)
    warps = min(4 * quads * rows // _PER_WARP, 32)
    launch(_unit_rows, (triton.cdiv(num, rows),), out, count, seed, num, dim, ROWS=rows, QUADS=quads, num_warps=warps)
    return out


def rgg_draws(
    shape: Sequence[int], seed: int, count: Tensor, *, p: float, mu: float, sigma: float, rectified: bool
) -> Tensor:
    """fp32 draws of mu + sigma * G, density of G proportional to exp(-|g|^p / p), or of its ReLU, on count's device.

    G is normal for p = 2 and Laplace for p = 1, both by inversion or Box and Muller's form of uniform numbers of 31 or
    32 bits. Else |G| = (p * Gamma(1 / p))^(1 / p) by Marsaglia and Tsang (2000), in logarithms, for 1 / p < 1 by
    Gamma(a) = Gamma(a + 1) * U^(1 / a). Their rejection ends after 12 rounds, which changes a draw with a probability
    below 3e-16; so all draws are exact up to the rounding of fp32.
    """
    out = torch.empty(*shape, dtype=torch.float32, device=count.device)
    power = int(p) if p in (1, 2) else 0
    size = _SIZE if power else _SIZE // 2
    shift = 1 / p + (p > 1) - 1 / 3  # Marsaglia and Tsang's d
    numbers = {
        "mu": float(mu),
        "sigma": sigma,
        "shift": shift,
        "spread": 1 / math.sqrt(9 * shift),
        "slope": 3 / p,
        "offset": math.log(sigma) + math.log(p * shift) / p,
    }
    launch(
        _rgg_draws,
        (triton.cdiv(out.numel(), size),),
        *(out, count, seed, out.numel()),
        **numbers,
        POWER=power,
        BOOSTED=p > 1,
        RECTIFIED=rectified,
        SIZE=size,
        num_warps=_SIZE // _PER_WARP,
    )
    return out


@triton.jit
def _words(index, draw, count, seed):  # type: ignore[no-untyped-def]
    """Four words per index: Philox4x32-10 of the counter (index low, index high, draw, count) and the key (seed low,
    seed high)."""
    index, seed = index.to(tl.int64), seed.to(tl.int64)
    none = (index * 0).to(tl.uint32)
    low, high = index.to(tl.uint32), (index >> 32).to(tl.uint32)
    keys = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    return tl.philox_impl(low, high, none + draw.to(tl.uint32), none + count.to(tl.uint32), keys[0], keys[1])


@triton.jit
def _uniform(word):  # type: ignore[no-untyped-def]
    """(word + 1/2) / 2^32 in fp32: in (0, 1], fine near 0, where the tails are."""
    return (word.to(tl.float32) + 0.5) * 2.3283064365386963e-10


@triton.jit
def _interleave(a, b, c, d):  # type: ignore[no-untyped-def]
    """(..., Q) each -> (..., 4 Q): a_0 b_0 c_0 d_0 a_1 .., which lie in one thread."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@triton.jit
def _normals(index, count, seed):  # type: ignore[no-untyped-def]
    """(..., Q) indices -> (..., 4 Q) standard normal numbers, by Box and Muller."""
    w0, w1, w2, w3 = _words(index, tl.full((), 0, tl.uint32), count, seed)
    TURN: tl.constexpr = 6.283185307179586
    r, s = tl.sqrt_rn(-2 * tl.log(_uniform(w0))), tl.sqrt_rn(-2 * tl.log(_uniform(w2)))
    x, y = TURN * _uniform(w1), TURN * _uniform(w3)
    return _interleave(r * tl.cos(x), r * tl.sin(x), s * tl.cos(y), s * tl.sin(y))


@triton.jit(do_not_specialize=["seed"])
def _unit_rows(  # type: ignore[no-untyped-def]
    out_ptr, count_ptr, seed, num, dim, ROWS: tl.constexpr, QUADS: tl.constexpr
):
    """out: (num, dim). The index of four numbers is row * 2^32 + their place in the row."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, 4 * QUADS)[None, :]
    x = _normals((row << 32) + tl.arange(0, QUADS)[None, :], tl.load(count_ptr), seed)
    x = tl.where(column < dim, x, 0.0)
    squared = tl.sum(x * x, axis=1)[:, None]
    x = tl.where((squared == 0) & (column == 0), 1.0, x)  # at dim 1 a normal number may be 0
    x = tl.div_rn(x, tl.sqrt_rn(tl.where(squared == 0, 1.0, squared)))
    tl.store(out_ptr + row * dim + column, x, mask=(row < num) & (column < dim))


@triton.jit
def _laplace(index, count, seed):  # type: ignore[no-untyped-def]
    """(Q,) indices -> (4 Q,) Laplace numbers: a word's highest bit is the sign."""
    w0, w1, w2, w3 = _words(index, tl.full((), 0, tl.uint32), count, seed)
    word = _interleave(w0, w1, w2, w3)
    size = -tl.log(_uniform(word << 1))
    return tl.where((word >> 31) == 0, size, -size)


@triton.jit
def _powers_of_gamma(index, count, seed, shift, spread, slope, offset, BOOSTED: tl.constexpr):  # type: ignore[no-untyped-def]
    """(Q,) indices -> (Q,) numbers sigma * G for any p: the first round whose proposal is accepted decides."""
    missing = index >= 0
    logarithm = tl.zeros(index.shape, tl.float32)  # of the accepted 1 + spread * x, whose cube is Gamma / shift
    spare = (index * 0).to(tl.uint32)
    draw = tl.full((), 0, tl.uint32)
    while (tl.max(missing.to(tl.int32), axis=0) > 0) & (draw < _ROUNDS):
        w0, w1, w2, w3 = _words(index, draw, count, seed)
        x = tl.sqrt_rn(-2 * tl.log(_uniform(w0))) * tl.cos(6.283185307179586 * _uniform(w1))
        root = tl.maximum(1 + spread * x, 1e-20)  # below 0 it is rejected: log(root) is -46
        third = tl.log(root)
        accepted = tl.log(_uniform(w2)) < 0.5 * x * x + shift * (1 - root * root * root + 3 * third)
        chosen = missing & accepted & (root > 1e-20)
        logarithm = tl.where(chosen, third, logarithm)
        spare = tl.where(chosen, w3, spare)
        missing = missing & (chosen == 0)
        draw += 1
    size = offset + slope * logarithm
    if BOOSTED:
        size += tl.log(_uniform(spare << 1))
    size = tl.exp(size)
    return tl.where((spare >> 31) == 0, size, -size)


@triton.jit(do_not_specialize=["seed"])
def _rgg_draws(  # type: ignore[no-untyped-def]
    out_ptr,
    count_ptr,
    seed,
    total,
    mu,
    sigma,
    shift,
    spread,
    slope,
    offset,
    POWER: tl.constexpr,
    BOOSTED: tl.constexpr,
    RECTIFIED: tl.constexpr,
    SIZE: tl.constexpr,
):
    """out: (total,). For POWER 1 and 2 an index is that of four numbers, for others (0) that of one."""
    start = tl.program_id(0).to(tl.int64) * SIZE
    count = tl.load(count_ptr)
    if POWER == 2:
        x = mu + sigma * _normals(start // 4 + tl.arange(0, SIZE // 4), count, seed)
    elif POWER == 1:
        x = mu + sigma * _laplace(start // 4 + tl.arange(0, SIZE // 4), count, seed)
    else:
        index = start + tl.arange(0, SIZE)
        x = mu + _powers_of_gamma(index, count, seed, shift, spread, slope, offset, BOOSTED)
    if RECTIFIED:
        x = tl.maximum(x, 0.0)
    place = start + tl.arange(0, SIZE)
    tl.store(out_ptr + place, x, mask=place < total)
