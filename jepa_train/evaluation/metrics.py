"""Metrics of embeddings besides accuracy: sparsity, rank, collapse."""

import torch
from torch import Tensor

from jepa_train.distributed.collectives import at_least_fp32

# Of the target's standard deviation. Healthy runs on digits stay above 0.1 from the middle of the second epoch; with a
# target as narrow as mu = -3 the first steps fall to 0.02 for two steps, so a single batch does not decide.
COLLAPSE_FRACTION = 0.05
# For losses free of scale (SimCLR, NCL) theory gives no spread of z. A projector begins with about 0.3; only networks
# whose z no longer depends on the image reach a twentieth of this value.
UNSCALED_STD = 0.1
RANK_ROWS = 8192  # of effective_rank: float64 products of 45,000 rows of 2048 take seconds an epoch


def nonzero_fraction(z: Tensor) -> Tensor:
    """Share of entries that are not exactly 0: ||z||_0 / D, averaged; 1 is dense. Scalar."""
    return torch.count_nonzero(z) / z.numel()


def l1_sparsity(z: Tensor) -> Tensor:
    """(||z||_1 / ||z||_2)^2 / D, averaged over rows; 1 is dense, 1 / D one active entry, 2 / pi Gaussian. Scalar.

    A row of zeros counts as 0, sparser than any other; the ratio has no limit there.

    Args:
        z: (N, D).
    """
    size = z.float().abs()
    size = size / size.amax(dim=1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)  # squares underflow
    ratio = size.sum(dim=1).square() / size.square().sum(dim=1).clamp(min=torch.finfo(size.dtype).tiny)
    return (ratio / z.shape[1]).mean()


def dead_fraction(z: Tensor) -> Tensor:
    """Share of the D dimensions that are constant over the N rows, such as always 0. Scalar.

    Args:
        z: (N, D).
    """
    return constant_dimensions(z).float().mean()


def constant_dimensions(x: Tensor) -> Tensor:
    """(E,), true for dimensions in which all N rows of x (N, E) have the same value, up to rounding."""
    x = at_least_fp32(x)
    return x.std(dim=0, correction=0) <= 1e-6 * x.mean(dim=0).abs()


def effective_rank(x: Tensor) -> Tensor:
    """RankMe (Garrido et al. 2023): exp of the entropy of the singular values divided by their sum. Scalar.

    As in the paper the embeddings are not centered, and a sample represents the split: at most 8,192 rows (paper:
    25,600), evenly spaced. Between 1 and min(N, E); 0 if all are zero; NaN if not all are finite.

    Args:
        x: (N, E).
    """
    x = spread_rows(x, RANK_ROWS).double()
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    finite = gram.isfinite().all()
    # The eigenvalues of the smaller Gram matrix cost a fraction of the SVD; in float64 their square roots are good
    # to 1e-8 of the largest, far below what the entropy sees.
    singular = torch.linalg.eigvalsh(torch.where(finite, gram, 0.0)).clamp(min=0).sqrt()  # raises for inf and NaN
    total = singular.sum()
    rank = torch.special.entr(singular / total).sum().exp()
    return torch.where(finite, torch.where(total == 0, 0.0, rank), torch.nan).float()


def spread_rows(x: Tensor, count: int) -> Tensor:
    """At most `count` rows of x (N, ...), evenly spaced, which is balanced even if x is sorted by class."""
    if len(x) <= count:
        return x
    return x[torch.arange(count, device=x.device) * len(x) // count]


def embedding_std(z: Tensor) -> Tensor:
    """Standard deviation over the N rows, averaged over the D dimensions. Scalar.

    Args:
        z: (N, D).
    """
    return z.float().std(dim=0, correction=0).mean()


def collapse_reason(std: float, expected_std: float) -> str:
    """Message if the embedding counts as collapsed, else "".

    The bound is relative to the target's standard deviation, as a healthy embedding may be small: a rectified Gaussian
    of mean -3 has a standard deviation of 0.014. A std that is not finite is divergence, not collapse: "".

    Args:
        std: embedding_std.
        expected_std: of the target distribution, in closed form.
    """
    if not std < COLLAPSE_FRACTION * expected_std:
        return ""
    return f"embedding_std {std:.3g} is below {COLLAPSE_FRACTION:.0%} of the target's {expected_std:.3g}"
