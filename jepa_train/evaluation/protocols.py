"""The evaluation protocols: what can be asked of frozen embeddings, by name; config.probe.protocols lists some.

A protocol is a pure function of the embeddings and their labels, without a seed: runs that are compared meet the same
shots and the same minibatches. The metric's name says which protocol it comes from; GLOSSARY explains each.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_train.base.seeds import generator
from jepa_train.evaluation.glossary import SHOTS
from jepa_train.evaluation.linear_probe import Spectrum, linear_probe
from jepa_train.evaluation.probes import Labelled, ProbeScore, knn_top1, sgd_probe, standardised

DRAWS = 5
FIXED_KS = (20, 200)  # of neighbours: what papers report without choosing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The embeddings of the un-augmented images of all splits, equal on all ranks, as the network made them."""

    train: Labelled
    val: Labelled
    test: Labelled
    num_classes: int

    @functools.cached_property
    def standardised(self) -> "Frozen":
        """The same with train's mean 0 and standard deviation 1 in every dimension; a copy, made once."""
        parts = self.train, self.val, self.test
        xs = standardised(*(part.x for part in parts))
        train, val, test = (part._replace(x=x) for part, x in zip(parts, xs, strict=True))
        return Frozen(train=train, val=val, test=test, num_classes=self.num_classes)

    @functools.cached_property
    def spectrum(self) -> Spectrum:
        """Of the training embeddings."""
        return Spectrum.of(self.train.x)


Protocol = Callable[[Frozen], dict[str, float]]  # -> {"val/linear_top1": .., "test/linear_top1": ..}


def linear(frozen: Frozen) -> dict[str, float]:
    """Multinomial logistic regression on the whole training split, its L2 strength chosen on val."""
    data = frozen.standardised
    (score,) = linear_probe([data.train], data.val, data.test, num_classes=data.num_classes, spectrum=data.spectrum)
    return _reported("linear", score)


def sgd(frozen: Frozen) -> dict[str, float]:
    """The field's offline linear probe: SGD, many learning rates side by side, the one chosen on val."""
    data = frozen.standardised
    return _reported("sgd", sgd_probe(data.train, data.val, data.test, num_classes=data.num_classes))


def knn(frozen: Frozen) -> dict[str, float]:
    """A similarity-weighted vote of the k nearest: at the k that is best on val, the smallest of equals; at fixed k."""
    on_val, on_test = (
        knn_top1(frozen.train, queries, num_classes=frozen.num_classes) for queries in (frozen.val, frozen.test)
    )
    best = max(on_val, key=on_val.__getitem__)
    metrics = _reported("knn", ProbeScore(on_val[best], on_test[best], best))
    for k in FIXED_KS:
        metrics |= _reported(f"knn{k}", ProbeScore(on_val[k], on_test[k], k))
    return metrics


def kshot(frozen: Frozen, shots: Sequence[int] = SHOTS) -> dict[str, float]:
    """The linear probe on so many training images per class: mean and, on test, spread over 5 draws.

    The L2 strength is chosen on the whole of val, one per number of shots. Embeddings are standardised by the training
    split's statistics, which take no labels. A class with fewer images gives all; numbers that no
    class has are left out.
    """
    data = frozen.standardised
    metrics: dict[str, float] = {}
    for count in possible_shots(data.train.labels, shots):
        draws = [shots_of(data.train.labels, count, draw=draw) for draw in range(DRAWS)]
        scores = linear_probe(
            [Labelled(data.train.x[rows], data.train.labels[rows]) for rows in draws],
            data.val,
            data.test,
            num_classes=data.num_classes,
            spectrum=data.spectrum,
        )
        val, test = (torch.tensor(values, dtype=torch.float64) for values in list(zip(*scores, strict=True))[:2])
        metrics |= _reported(f"shot{count}", ProbeScore(val.mean().item(), test.mean().item(), scores[0].choice))
        metrics[f"test/shot{count}_top1_std"] = test.std().item()
    return metrics


# finetune, which needs the network, is in finetune.py
PROTOCOLS: dict[str, Protocol] = {"linear": linear, "sgd": sgd, "knn": knn, "kshot": kshot}


def possible_shots(labels: Tensor, shots: Sequence[int]) -> list[int]:
    """Those of the numbers per class that the largest class has; smaller ones give all that they have.

    What is left out is said in the log, once per process.
    """
    most = int(labels.bincount().max())
    missing = tuple(count for count in shots if count > most)
    if missing:
        _say_left_out(most, missing)
    return [count for count in shots if count <= most]


@functools.cache
def _say_left_out(most: int, missing: tuple[int, ...]) -> None:
    numbers = ", ".join(map(str, missing))
    logger.warning("no class has more than %d training images, so %s shots per class are left out", most, numbers)


def shots_of(labels: Tensor, shots: int, *, draw: int) -> Tensor:
    """Positions of `shots` images of every class, the first ones in an order that depends on the draw alone.

    Fewer shots are thus among the more, and every run on this split gets the same.

    Args:
        labels: (N,); on any device, where the positions will lie too.
    """
    order = torch.randperm(len(labels), generator=generator("kshot", draw)).to(labels.device)
    order = order[labels[order].argsort(stable=True)]  # class by class
    counts = labels.bincount()
    starts = (counts.cumsum(0) - counts)[labels[order]]  # (N,), where each one's class begins
    return order[torch.arange(len(order), device=order.device) - starts < shots]


def _reported(name: str, score: ProbeScore) -> dict[str, float]:
    return {f"val/{name}_top1": score.val, f"test/{name}_top1": score.test}
