"""Entropy and pairwise dependence (HSIC) of the embedding dimensions."""

import torch
from torch import Tensor

from jepa_train.base.seeds import generator
from jepa_train.evaluation.metrics import spread_rows

ENTROPY_ROWS = 2048
HSIC_ROWS = 512
HSIC_DIMENSIONS = 32  # 496 pairs

_FEWEST = 5  # samples that Vasicek's estimator needs
_SHIFTS = 16  # of the rows against themselves: enough pairs for a median


def entropy(z: Tensor) -> Tensor:
    """Entropy of a dimension of z in nats, averaged over the D dimensions. Scalar.

    A dimension that is not 0 with probability phi has entropy phi * H1 + H0 (Rectified LpJEPA's information-dimension
    form): H1 is the differential entropy of the non-zero values, by Vasicek's spacings as in scipy's
    differential_entropy(method="vasicek"), and H0 that of Bernoulli(phi). It depends on the scale of z. Spacings are at
    least 2^-20 of the dimension's range, so that a constant has a finite entropy; H1 is 0 for fewer than 5 non-zero
    values. At most 2,048 rows are used, evenly spaced.

    Args:
        z: (N, D).
    """
    rows = spread_rows(z, ENTROPY_ROWS).float().T.contiguous()  # (D, N)
    alive = rows != 0
    count = alive.sum(dim=1, keepdim=True)  # (D, 1)
    x = torch.where(alive, rows, torch.inf).sort(dim=1).values
    place = torch.arange(x.shape[1], device=x.device)
    last = (count - 1).clamp(min=0)
    window = (count.sqrt() + 0.5).floor().long().clamp(min=1)  # scipy's default
    upper, lower = x.gather(1, torch.minimum(place + window, last)), x.gather(1, (place - window).clamp(min=0))
    scale = rows.abs().amax(dim=1, keepdim=True)
    spacing = torch.maximum(upper - lower, 2.0**-20 * scale)
    logs = torch.where((place < count) & (count >= _FEWEST), (spacing * count / (2 * window)).log(), 0.0)
    phi = alive.float().mean(dim=1)
    # phi * H1 is the sum of the logs over N, as the sum has count = phi * N terms
    bernoulli = torch.special.entr(phi) + torch.special.entr(1 - phi)
    return (logs.sum(dim=1) / x.shape[1] + bernoulli).mean()


def hsic(z: Tensor) -> Tensor:
    """Normalised HSIC of two dimensions of z, averaged over pairs. Scalar, 0 if independent.

    HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)), 1 for y = x (Rectified LpJEPA, Fig. 4b, prints no estimator). Each HSIC is
    the unbiased estimator (Gretton et al. 2005; Song et al. 2012, Eq. 5), by U-centered kernels, which needs few rows
    and may be slightly below 0. The kernel is exp(-d^2 / (2 s^2)), with s the median distance of rows that differ in
    that dimension: over all rows it would be 0 for a sparse z. At most 512 rows are used, evenly spaced, and the pairs
    of 32 dimensions, a fixed draw among those that vary. NaN if fewer than two vary. The host waits for the device
    twice, and the result lies on the CPU.

    Args:
        z: (N, D), at least 4 rows.
    """
    rows = spread_rows(z, HSIC_ROWS).float()
    living = (rows != rows[0]).any(dim=0).nonzero().flatten()
    order = torch.randperm(len(living), generator=generator("hsic"))[:HSIC_DIMENSIONS]
    kernels = torch.stack([_u_centered(rows[:, place]) for place in living[order.to(living.device)]] or [rows[:0, 0]])
    gram = (kernels @ kernels.T).cpu()  # HSIC of every pair, times n (n - 3)
    own = gram.diagonal()
    kept = own > 1e-10 * kernels.shape[1]  # a dimension with a single deviating value has only rounding error
    normalised = (gram / (own[:, None] * own).sqrt())[kept][:, kept]
    return normalised[torch.ones_like(normalised, dtype=torch.bool).triu(1)].mean()


def _u_centered(x: Tensor) -> Tensor:
    """Gaussian kernel of x (n,), centered without its diagonal (Szekely and Rizzo 2014, Eq. 3.1): (n * n,)."""
    n = len(x)
    apart = torch.stack([x - x.roll(shift) for shift in range(1, n, max(n // _SHIFTS, 1))]).abs()
    scaled = x / torch.where(apart > 0, apart, torch.nan).flatten().nanmedian(dim=0).values
    kernel = (scaled[:, None] - scaled).square_().mul_(-0.5).exp_().fill_diagonal_(0)
    sums = kernel.sum(dim=1)
    centered = kernel - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return centered.fill_diagonal_(0).flatten()
