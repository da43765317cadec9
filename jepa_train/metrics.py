"""What is measured on embeddings besides accuracy: sparsity, rank, collapse; and the glossary of reported names."""

import torch
from torch import Tensor

COLLAPSE_FRACTION = 0.05  # of the target's standard deviation; healthy runs on digits stay above 0.14 from epoch 1 on

GLOSSARY: dict[str, str] = {
    "probe_top1": "accuracy of the online linear probe on encoder features",
    "projector_top1": "accuracy of the online linear probe on z, the projector's output",
    "linear_top1": "accuracy of a full linear probe on encoder features, fitted at the end, its L2 chosen on val",
    "linear_projector_top1": "accuracy of a full linear probe on z, fitted at the end, its L2 chosen on val",
    "knn_top1": "accuracy of the cosine-weighted k-nearest-neighbour vote on encoder features",
    "knn_projector_top1": "accuracy of the cosine-weighted k-nearest-neighbour vote on z",
    "nonzero_fraction": "share of entries of z that are not exactly 0 (the papers' L0; lower is sparser)",
    "l1_sparsity": "mean of (L1 norm / L2 norm)^2 / D over the rows of z (lower is sparser; Gaussian: 0.637)",
    "effective_rank": "RankMe of encoder features: exp of the entropy of the normalised singular values",
    "embedding_std": "standard deviation of z over images, averaged over dimensions; near 0 means collapse",
    "std": "standard deviation of a dimension of z in the target distribution",
    "loss": "the method's objective, without the probes' cross-entropies",
    "invariance": "distance between the views of an image, unweighted; the definition is the method's own",
    "sigreg": "SIGReg: distance of the law of z to an isotropic Gaussian, unweighted",
    "rdmreg": "RDMReg: sliced Wasserstein distance of z to the target distribution, unweighted",
    "lr": "learning rate of encoder and projector at the epoch's last step",
    "images_per_s": "training images (not views) per second, all workers together",
}

# what evaluation reports on val, after every epoch or at the end; test_train compares it with the reports
ON_VAL = (
    "probe_top1",
    "projector_top1",
    "linear_top1",
    "linear_projector_top1",
    "knn_top1",
    "knn_projector_top1",
    "nonzero_fraction",
    "l1_sparsity",
    "effective_rank",
    "embedding_std",
)


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


def effective_rank(x: Tensor) -> Tensor:
    """RankMe (Garrido et al. 2023): exp of the entropy of the singular values divided by their sum. Scalar.

    As in the paper the embeddings are not centred. Between 1 and min(N, E); 0 if all are zero; NaN if
    not all are finite.

    Args:
        x: (N, E).
    """
    x = x.double()
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
