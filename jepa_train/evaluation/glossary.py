"""Glossary of the reported metrics, and the names of those reported on val."""

SHOTS = (1, 2, 5, 10, 100, 1000)  # images per class, as in LeJEPA's Tables 2 and 3
FACTORS = (1.0, 0.1, 0.01, 0.001)  # by which protocol "collapse" shrinks z

GLOSSARY: dict[str, str] = {
    "probe_top1": "accuracy of the online linear probe on encoder features",
    "projector_top1": "accuracy of the online linear probe on z, the projector's output",
    "linear_top1": "accuracy of logistic regression on encoder features, fitted at the end, its L2 chosen on val",
    "linear_projector_top1": "accuracy of logistic regression on z, fitted at the end, its L2 chosen on val",
    "sgd_top1": "accuracy of a linear head on encoder features, by SGD at the end, its learning rate chosen on val",
    "sgd_projector_top1": "accuracy of a linear head on z, by SGD at the end, its learning rate chosen on val",
    "plain_sgd_top1": "accuracy of a linear head on raw encoder features, by SGD at lr .1 without momentum at the end",
    "plain_sgd_projector_top1": "accuracy of a linear head on raw z, by SGD at lr .1 without momentum at the end",
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
    **{
        f"gradient_at_{factor:g}": f"norm of the regularizer's gradient by z at {factor:g} z, weighted as in the loss"
        for factor in FACTORS
    },
    "nonzero_fraction": "share of entries of z that are not exactly 0 (the papers' L0; lower is sparser)",
    "l1_sparsity": "mean of (L1 norm / L2 norm)^2 / D over the rows of z (lower is sparser; Gaussian: 0.637)",
    "dead_fraction": "share of dimensions of z that are constant, such as always 0, over the split",
    "effective_rank": "RankMe of at most 8192 encoder features: exp of the entropy of their singular values' shares",
    "embedding_std": "standard deviation of z over images, averaged over dimensions; near 0 means collapse",
    "entropy": "entropy of a dimension of z in nats, zeros apart, averaged over dimensions; on test, else val",
    "hsic": "dependence of two dimensions of z, normalised HSIC over random pairs (0: independent); on test, else val",
    "std": "standard deviation of a dimension of z in the target distribution",
    "loss": "the method's objective, without the probes' cross-entropies",
    "invariance": "distance between the views of an image, unweighted; the definition is the method's own",
    "sigreg": "SIGReg: distance of the distribution of z to an isotropic Gaussian, unweighted",
    "mmd": "KerJEPA: the limit of SIGReg for infinitely many slices, unweighted",
    "scale": "VISReg: mean squared distance of the standard deviations of z to 1, unweighted",
    "shape": "VISReg: sliced Wasserstein distance of z, at mean 0 and deviation 1, to N(0, I), unweighted",
    "center": "VISReg: mean square of the means of z, unweighted",
    "redundancy": "Barlow Twins: sum of squared correlations between different dimensions of z, unweighted",
    "variance": "VICReg's hinge on the standard deviations of z, unweighted",
    "covariance": "VICReg's penalty on covariances between dimensions of z, unweighted",
    "rdmreg": "RDMReg: sliced Wasserstein distance of z to the target distribution, unweighted",
    "lr": "learning rate of encoder and projector at the epoch's last step",
    "images_per_s": "training images (not views) per second, all workers together",
    "skipped_steps": "steps skipped so far because fp16 gradients overflowed (precision=fp16)",
    "skipped_images": "corrupt image files that were left out of all splits (data.on_corrupt=skip)",
    "peak_memory_gb": "largest memory in 1e9 bytes, of any worker: tensors on a GPU since the start, else the process",
}

# Reported on val, after every epoch and at the end by protocol: the metrics by which a sweep may rank.
ON_VAL = (
    "probe_top1",
    "projector_top1",
    "nonzero_fraction",
    "l1_sparsity",
    "dead_fraction",
    "effective_rank",
    "embedding_std",
)
# Reported on train after every epoch by every method, besides the terms of its loss.
ON_TRAIN = ("loss", "embedding_std", "lr", "images_per_s", "peak_memory_gb")
_STEMS = {name: name for name in ("linear", "sgd", "plain_sgd", "knn", "finetune")} | {"kshot": "shot"}
ON_VAL_BY_PROTOCOL: dict[str, tuple[str, ...]] = {
    protocol: tuple(name for name in GLOSSARY if name.startswith(stem) and name.endswith("_top1"))
    for protocol, stem in _STEMS.items()
} | {"collapse": ()}
