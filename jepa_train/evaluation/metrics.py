"""What is measured on embeddings besides accuracy: sparsity, rank, collapse; and the glossary of reported names."""

import torch
from torch import Tensor

from jepa_train.distributed.collectives import at_least_fp32

# Of the target's standard deviation. Healthy runs on digits stay above 0.1 from the second epoch's middle on; in the
# first steps a target as narrow as mu = -3 lets one fall to 0.02 for two steps, so one batch alone proves nothing.
COLLAPSE_FRACTION = 0.05
# Where the loss is free of scale (SimCLR, NCL), theory names no spread of z: this is near what a projector begins with
# (0.3 or so), and a twentieth of it is reached by networks alone whose z no longer depends on the image.
UNSCALED_STD = 0.1
RANK_ROWS = 8192  # of effective_rank: float64 products of 45,000 rows of 2048 take seconds an epoch

SHOTS = (1, 2, 5, 10, 100, 1000)  # images per class, as in LeJEPA's Tables 2 and 3

GLOSSARY: dict[str, str] = {
    "probe_top1": "accuracy of the online linear probe on encoder features",
    "projector_top1": "accuracy of the online linear probe on z, the projector's output",
    "linear_top1": "accuracy of logistic regression on encoder features, fitted at the end, its L2 chosen on val",
    "linear_projector_top1": "accuracy of logistic regression on z, fitted at the end, its L2 chosen on val",
    "sgd_top1": "accuracy of a linear head on encoder features, by SGD at the end, its learning rate chosen on val",
    "sgd_projector_top1": "accuracy of a linear head on z, by SGD at the end, its learning rate chosen on val",
    "knn_top1": "accuracy of the cosine-weighted vote of k nearest encoder features, k chosen on val",
    "knn_projector_top1": "accuracy of the cosine-weighted vote of the k nearest z, k chosen on val",
    "knn20_top1": "accuracy of the cosine-weighted vote of the 20 nearest encoder features",
    "knn20_projector_top1": "accuracy of the cosine-weighted vote of the 20 nearest z",
    "knn200_top1": "accuracy of the cosine-weighted vote of the 200 nearest encoder features",
    "knn200_projector_top1": "accuracy of the cosine-weighted vote of the 200 nearest z",
    **{
        f"shot{shots}{part}_top1{spread}": f"accuracy of a linear probe on {what} of {shots} per class, {over} 5 draws"
        for shots in SHOTS
        for part, what in (("", "encoder features"), ("_projector", "z"))
        for spread, over in (("", "mean over"), ("_std", "standard deviation over"))
    },
    "finetune_top1": "accuracy of encoder and linear head trained on all images, their learning rate chosen on val",
    **{
        f"finetune{shots}_top1": f"accuracy of encoder and linear head trained on {shots} per class, rate chosen on val"
        for shots in SHOTS
    },
    "nonzero_fraction": "share of entries of z that are not exactly 0 (the papers' L0; lower is sparser)",
    "l1_sparsity": "mean of (L1 norm / L2 norm)^2 / D over the rows of z (lower is sparser; Gaussian: 0.637)",
    "dead_fraction": "share of dimensions of z that are constant, such as always 0, over the split",
    "effective_rank": "RankMe of at most 8192 encoder features: exp of the entropy of their singular values' shares",
    "embedding_std": "standard deviation of z over images, averaged over dimensions; near 0 means collapse",
    "entropy": "entropy of a dimension of z in nats, zeros apart from the rest, averaged over dimensions; on test",
    "hsic": "dependence between two dimensions of z, normalised HSIC over random pairs (0: independent); on test",
    "std": "standard deviation of a dimension of z in the target distribution",
    "loss": "the method's objective, without the probes' cross-entropies",
    "invariance": "distance between the views of an image, unweighted; the definition is the method's own",
    "sigreg": "SIGReg: distance of the law of z to an isotropic Gaussian, unweighted",
    "variance": "VICReg's hinge on the standard deviations of z, unweighted",
    "covariance": "VICReg's penalty on covariances between dimensions of z, unweighted",
    "rdmreg": "RDMReg: sliced Wasserstein distance of z to the target distribution, unweighted",
    "lr": "learning rate of encoder and projector at the epoch's last step",
    "images_per_s": "training images (not views) per second, all workers together",
    "skipped_images": "corrupt image files that were left out of all splits (data.on_corrupt=skip)",
    "peak_memory_gb": "largest memory in 1e9 bytes, of any worker: tensors on a GPU, else the whole process",
}

# What evaluation reports on val, after every epoch, and at the end by protocol: what a sweep may rank by.
ON_VAL = (
    "probe_top1",
    "projector_top1",
    "nonzero_fraction",
    "l1_sparsity",
    "dead_fraction",
    "effective_rank",
    "embedding_std",
)
ON_VAL_BY_PROTOCOL = {
    protocol: tuple(f"{name}{part}_top1" for name in names for part in ("", "_projector"))
    for protocol, names in {
        "linear": ("linear",),
        "sgd": ("sgd",),
        "knn": ("knn", "knn20", "knn200"),
        "kshot": tuple(f"shot{shots}" for shots in SHOTS),
    }.items()
} | {"finetune": ("finetune_top1", *(f"finetune{shots}_top1" for shots in SHOTS))}


def nonzero_fraction(z: Tensor) -> Tensor:
    """The share of entries that are not exactly 0: ||z||_0 / D, averaged; 1 is dense. Scalar."""
    return torch.count_nonzero(z) / z.numel()


def l1_sparsity(z: Tensor) -> Tensor:
    """(||z||_1 / ||z||_2)^2 / D, averaged over rows; 1 is dense, 1 / D one active entry, 2 / pi Gaussian. Scalar.

    A row of zeros counts as 0, sparser than any other: it has nothing active, and the ratio no limit.

    Args:
        z: (N, D).
    """
    size = z.float().abs()
    size = size / size.amax(dim=1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)  # squares of tiny rows are 0
    ratio = size.sum(dim=1).square() / size.square().sum(dim=1).clamp(min=torch.finfo(size.dtype).tiny)
    return (ratio / z.shape[1]).mean()


def dead_fraction(z: Tensor) -> Tensor:
    """The share of the D dimensions that are constant over the N rows, such as always 0. Scalar.

    Args:
        z: (N, D).
    """
    return constant_dimensions(z).float().mean()


def constant_dimensions(x: Tensor) -> Tensor:
    """(E,), true where the N rows of x (N, E) have all the same value, up to rounding."""
    x = at_least_fp32(x)
    return x.std(dim=0, correction=0) <= 1e-6 * x.mean(dim=0).abs()


def effective_rank(x: Tensor) -> Tensor:
    """RankMe (Garrido et al. 2023): exp of the entropy of the singular values divided by their sum. Scalar.

    As in the paper the embeddings are not centred, and a sample stands for the split: at most 8,192 rows (there:
    25,600), spread evenly. Between 1 and min(N, E); 0 if all are zero; NaN if not all of them are finite.

    Args:
        x: (N, E).
    """
    x = spread_rows(x, RANK_ROWS).double()
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    if not gram.isfinite().all():  # eigvalsh would raise
        return torch.full((), torch.nan, device=x.device)
    # The eigenvalues of the smaller Gram matrix cost a fraction of the SVD; in float64 their square roots are good
    # to 1e-8 of the largest, far below what the entropy sees.
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = singular.sum()
    if total == 0:
        return torch.zeros((), device=x.device)
    return torch.special.entr(singular / total).sum().exp().float()


def spread_rows(x: Tensor, count: int) -> Tensor:
    """x (N, ...), or `count` of its rows at equal distances where it has more: fair even if x is sorted by class."""
    if len(x) <= count:
        return x
    return x[torch.arange(count, device=x.device) * len(x) // count]


def embedding_std(z: Tensor) -> Tensor:
    """The standard deviation over the N rows, averaged over the D dimensions. Scalar.

    Args:
        z: (N, D).
    """
    return z.float().std(dim=0, correction=0).mean()


def collapse_reason(std: float, expected_std: float) -> str:
    """Why the embedding counts as collapsed, in words; "" while it does not.

    The bound is relative to the target's standard deviation, because a healthy embedding may be small: a rectified
    Gaussian of mean -3 has a standard deviation of 0.014. A std that is not finite is not collapse but divergence: "".

    Args:
        std: embedding_std.
        expected_std: the same of the target distribution, in closed form.
    """
    if not std < COLLAPSE_FRACTION * expected_std:
        return ""
    return f"embedding_std {std:.3g} is below {COLLAPSE_FRACTION:.0%} of the target's {expected_std:.3g}"
