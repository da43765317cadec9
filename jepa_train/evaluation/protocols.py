"""Evaluation protocols on frozen features, by name: linear probes, kNN, k-shot. config.probe.protocols lists some.

A protocol is a pure function of the embeddings and their labels, without a seed: all runs have the same shots and
minibatches. The metric's name contains the protocol's; GLOSSARY explains each.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from jepa_train.base.seeds import generator
from jepa_train.evaluation.glossary import SHOTS
from jepa_train.evaluation.linear_probe import linear_probe
from jepa_train.evaluation.probes import Frozen, Labelled, ProbeScore, fit_sgd, heads_top1, knn_top1, sgd_probe

DRAWS = 5
PLAIN_RATE = 0.1
FIXED_KS = (20, 200)  # numbers of neighbours that papers report without a choice


Protocol = Callable[[Frozen], dict[str, float]]  # -> {"val/linear_top1": .., "test/linear_top1": ..}


def linear(frozen: Frozen) -> dict[str, float]:
    """Multinomial logistic regression on the whole training split, its L2 strength chosen on val."""
    data = frozen.standardised
    return _reported("linear", *linear_probe(data, [data.train]))


def sgd(frozen: Frozen) -> dict[str, float]:
    """Offline linear probe as in the literature: SGD at many learning rates in parallel, chosen on val."""
    return _reported("sgd", sgd_probe(frozen.standardised))


def plain_sgd(frozen: Frozen) -> dict[str, float]:
    """Offline linear probe of torch.optim.SGD(lr=0.1), without momentum, schedule, decay or a choice on val.

    On the features as they are: a step is as large as their scale makes it. Batches of 256, 10 epochs from zero.
    """
    heads = fit_sgd(*frozen.train, num_classes=frozen.num_classes, rates=(PLAIN_RATE,), momentum=0.0, decay=False)
    on_val, on_test = torch.cat([heads_top1(heads, split) for split in (frozen.val, frozen.test)]).tolist()
    return _reported("plain_sgd", ProbeScore(on_val, on_test, PLAIN_RATE))


def knn(frozen: Frozen) -> dict[str, float]:
    """Similarity-weighted vote of the k nearest: at the k that is best on val, and at fixed k."""
    on_val, on_test = (
        knn_top1(frozen.train, queries, num_classes=frozen.num_classes) for queries in (frozen.val, frozen.test)
    )
    best = max(on_val, key=on_val.__getitem__)
    metrics = _reported("knn", ProbeScore(on_val[best], on_test[best], best))
    for k in FIXED_KS:
        metrics |= _reported(f"knn{k}", ProbeScore(on_val[k], on_test[k], k))
    return metrics


def kshot(frozen: Frozen, shots: Sequence[int] = SHOTS) -> dict[str, float]:
    """Linear probe on few training images per class: mean and, on test, standard deviation over 5 draws.

    The L2 strength is chosen on all of val, one per number of shots. Embeddings are standardised by the statistics of
    the whole training split, which needs no labels. A class with fewer images gives all of them; numbers that no class
    has are left out.
    """
    data = frozen.standardised
    metrics: dict[str, float] = {}
    for count in possible_shots(data.train.labels, shots):
        draws = [shots_of(data.train.labels, count, draw=draw) for draw in range(DRAWS)]
        scores = linear_probe(data, [Labelled(data.train.x[rows], data.train.labels[rows]) for rows in draws])
        val, test = (torch.tensor(values, dtype=torch.float64) for values in list(zip(*scores, strict=True))[:2])
        metrics |= _reported(f"shot{count}", ProbeScore(val.mean().item(), test.mean().item(), scores[0].choice))
        metrics[f"test/shot{count}_top1_std"] = test.std().item()
    return metrics


# finetune, which needs the network, is in finetune.py; collapse, which needs the method, in collapse.py
PROTOCOLS: dict[str, Protocol] = {
    "linear": linear,
    "sgd": sgd,
    "plain_sgd": plain_sgd,
    "knn": knn,
    "kshot": kshot,
}


def possible_shots(labels: Tensor, shots: Sequence[int]) -> list[int]:
    """The numbers of shots per class that at least the largest class has."""
    most = int(labels.bincount().max())
    return [count for count in shots if count <= most]


def shots_of(labels: Tensor, shots: int, *, draw: int) -> Tensor:
    """Indices of `shots` images of every class: the first ones in an order that depends on the draw alone.

    Fewer shots are a subset of more shots, and all runs on this split get the same.

    Args:
        labels: (N,), on any device; the indices are on the same.
    """
    order = torch.randperm(len(labels), generator=generator("kshot", draw)).to(labels.device)
    order = order[labels[order].argsort(stable=True)]  # class by class
    counts = labels.bincount()
    starts = (counts.cumsum(0) - counts)[labels[order]]  # (N,), start of each one's class
    return order[torch.arange(len(order), device=order.device) - starts < shots]


def _reported(name: str, score: ProbeScore) -> dict[str, float]:
    return {f"val/{name}_top1": score.val, f"test/{name}_top1": score.test}
