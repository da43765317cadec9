"""How much z says, and how much of it twice: entropy per dimension, and dependence between dimensions."""

import torch
from torch import Tensor

from jepa_train.base.seeds import generator
from jepa_train.evaluation.metrics import spread_rows

ENTROPY_ROWS = 2048
HSIC_ROWS = 512
HSIC_DIMENSIONS = 32  # 496 pairs

_FEWEST = 5  # samples that Vasicek's estimator needs
_SHIFTS = 16  # of the rows against themselves: pairs enough for a median


def entropy(z: Tensor) -> Tensor:
    """The entropy of a dimension of z in nats, averaged over the D dimensions. Scalar.

    Of a dimension that is not 0 with probability phi it is phi * H1 + H0 (Rectified LpJEPA's information-dimension
    form): H1 is the differential entropy of what is not 0, by Vasicek's spacings as in scipy's
    differential_entropy(method="vasicek"), and H0 that of Bernoulli(phi). It depends on the scale of z. What repeats a
    value, up to 2^-20 of the dimension's range, counts as that far apart, so that a constant has a finite entropy; of
    fewer than 5 values that are not 0 H1 counts as 0. Of more than 2,048 rows as many are taken, evenly.

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
    # phi * H1 is the sum of the logs over all N, as count = phi * N of them are not left out
    bernoulli = torch.special.entr(phi) + torch.special.entr(1 - phi)
    return (logs.sum(dim=1) / x.shape[1] + bernoulli).mean()


def hsic(z: Tensor) -> Tensor:
    """How dependent two dimensions of z are: the normalised HSIC, averaged over pairs. Scalar, 0 if independent.

    HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)), 1 for y = x (Rectified LpJEPA, Fig. 4b, prints no estimator). Each HSIC is
    the unbiased one (Gretton et al. 2005; Song et al. 2012, Eq. 5), by U-centred kernels, which needs few rows and may
    fall slightly below 0. The kernel is exp(-d^2 / (2 s^2)), s the median distance of rows that differ in that
    dimension: of all rows it would be 0 where z is sparse. The rows are at most 512, evenly; the pairs those of 32
    dimensions, drawn alike for everybody among those that vary. NaN where fewer than two do.

    Args:
        z: (N, D), at least 4 rows.
    """
    rows = spread_rows(z, HSIC_ROWS).float()
    living = (rows != rows[0]).any(dim=0).nonzero().flatten()
    order = torch.randperm(len(living), generator=generator("hsic"))[:HSIC_DIMENSIONS]
    kernels = torch.stack([_u_centred(rows[:, place]) for place in living[order.to(living.device)]] or [rows[:0, 0]])
    gram = kernels @ kernels.T  # HSIC of every pair, times n (n - 3)
    own = gram.diagonal()
    kept = own > 1e-10 * kernels.shape[1]  # a dimension with a single value apart has none but rounding
    normalised = (gram / (own[:, None] * own).sqrt())[kept][:, kept]
    return normalised[torch.ones_like(normalised, dtype=torch.bool).triu(1)].mean()


def _u_centred(x: Tensor) -> Tensor:
    """The Gaussian kernel of x (n,), centred without its diagonal (Szekely and Rizzo 2014, Eq. 3.1): (n * n,)."""
    n = len(x)
    apart = torch.stack([x - x.roll(shift) for shift in range(1, n, max(n // _SHIFTS, 1))]).abs()
    scaled = x / apart[apart > 0].median()
    kernel = (scaled[:, None] - scaled).square_().mul_(-0.5).exp_().fill_diagonal_(0)
    sums = kernel.sum(dim=1)
    centred = kernel - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0).flatten()
