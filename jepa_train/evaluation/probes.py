"""Probes of frozen embeddings: linear heads by SGD at many learning rates, and nearest neighbours.

Deterministic, in plain tensor operations without autograd. linear_probe.py has logistic regression.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.base.seeds import generator
from jepa_train.evaluation.metrics import constant_dimensions, spread_rows

SGD_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # for batches of 256 standardised embeddings
KNN_KS = (1, 5, 10, 20, 50, 100, 200)
KNN_TEMPERATURE = 0.07  # of the vote, as in the kNN protocol of Wu et al. 2018 that the field uses
_SPECTRUM_ROWS = 8192  # a sample suffices: the preconditioner does not change the solution
ROWS = 65536  # of logits at a time: 1.2 M rows and 1000 classes would take 5 GB


class Labelled(NamedTuple):
    """Embeddings x (N, E) and their labels (N,) in [0, number of classes)."""

    x: Tensor
    labels: Tensor


class ProbeScore(NamedTuple):
    """Top-1 of the probe chosen on val, and the chosen L2 strength, learning rate or k."""

    val: float
    test: float
    choice: float


def top1(predicted: Tensor, labels: Tensor) -> Tensor:
    """Share of correct predictions, a scalar in [0, 1]; both (N,)."""
    return (predicted == labels).float().mean()


def standardised(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Copies of (N, E) embeddings, standardised by the mean and standard deviation of the first.

    A dimension that is constant there (a dead ReLU) becomes 0: division by its rounding error would amplify noise.
    """
    scale = torch.where(constant_dimensions(train), torch.inf, train.std(dim=0, correction=0))
    mean = train.mean(dim=0)
    return tuple((x - mean).div_(scale) for x in (train, *others))


class Spectrum(NamedTuple):
    """Eigenvalues (E,) and eigenvectors (E, E), in columns, of the second moments of standardised embeddings."""

    variances: Tensor
    axes: Tensor


def spectrum_of(x: Tensor) -> Spectrum:
    """Spectrum of at most 8,192 rows, evenly spaced in x (N, E).

    In fp64: with many dead dimensions LAPACK's fp32 eigh fails or returns NaN one time in ten.
    """
    x = spread_rows(x, _SPECTRUM_ROWS)
    variances, axes = torch.linalg.eigh((x.T @ x / len(x)).double())
    return Spectrum(variances.clamp(min=0).to(x.dtype), axes.to(x.dtype))


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Embeddings of the un-augmented images of all splits, equal on all ranks, not standardised."""

    train: Labelled
    val: Labelled
    test: Labelled
    num_classes: int

    @functools.cached_property
    def standardised(self) -> "Frozen":
        """Copy with mean 0 and standard deviation 1 of train in every dimension; cached."""
        parts = self.train, self.val, self.test
        xs = standardised(*(part.x for part in parts))
        train, val, test = (part._replace(x=x) for part, x in zip(parts, xs, strict=True))
        return Frozen(train=train, val=val, test=test, num_classes=self.num_classes)

    @functools.cached_property
    def spectrum(self) -> Spectrum:
        """Spectrum of the training embeddings."""
        return spectrum_of(self.train.x)


def sgd_probe(data: Frozen) -> ProbeScore:
    """Linear probe on standardised embeddings by fit_sgd at the learning rate that is best on val, the smallest of
    equals."""
    heads = fit_sgd(*data.train, num_classes=data.num_classes, rates=SGD_RATES)
    on_val, on_test = torch.stack([heads_top1(heads, split) for split in (data.val, data.test)]).tolist()
    best = max(range(len(SGD_RATES)), key=on_val.__getitem__)
    return ProbeScore(on_val[best], on_test[best], SGD_RATES[best])


@torch.no_grad()
def fit_sgd(
    x: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    rates: Sequence[float],
    epochs: int = 10,
    batch: int = 256,
    momentum: float = 0.9,
    decay: bool = True,
) -> Tensor:
    """Train L independent linear heads from zero on the same minibatches, with one matrix product for all.

    By default SGD with momentum, cosine decay to 0, no weight decay, as DINOv2's linear evaluation; the last,
    incomplete batch of an epoch is left out, and the order is the same for all runs.

    Args:
        x: (N, E); fewer than `batch` rows are one batch.
        rates: L learning rates.
        decay: by a cosine to 0; otherwise the rates are constant.

    Returns:
        (L, C, E + 1), biases in the last column.
    """
    batch = min(batch, len(x))
    steps = len(x) // batch
    weight = x.new_zeros(len(rates) * num_classes, x.shape[1])
    bias = x.new_zeros(len(weight))
    velocities = torch.zeros_like(weight), torch.zeros_like(bias)
    rate = torch.tensor(rates, dtype=x.dtype, device=x.device).repeat_interleave(num_classes)  # (L * C,)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator("sgd_probe", epoch)).to(x.device)
        for index, rows in enumerate(order[: steps * batch].split(batch)):
            some = x[rows]
            logits = torch.addmm(bias, some, weight.T).view(batch, len(rates), num_classes)
            target = labels[rows].view(batch, 1, 1).expand(-1, len(rates), 1)
            error = softmax_minus_target(logits, target).flatten(1).div_(batch)  # (batch, L * C)
            velocities[0].addmm_(error.T, some, beta=momentum)
            velocities[1].mul_(momentum).add_(error.sum(dim=0))
            factor = 0.5 * (1 + math.cos(math.pi * (epoch * steps + index) / (epochs * steps))) if decay else 1.0
            weight.addcmul_(rate[:, None], velocities[0], value=-factor)
            bias.addcmul_(rate, velocities[1], value=-factor)
    return torch.cat([weight, bias[:, None]], dim=1).view(len(rates), num_classes, -1)


@torch.no_grad()
def knn_top1(train: Labelled, queries: Labelled, *, num_classes: int, ks: Sequence[int] = KNN_KS) -> dict[int, float]:
    """Top-1 by k: votes of the k most cosine-similar training embeddings, weighted by exp(similarity / 0.07).

    All k share one pass over the similarities. If train has fewer than k rows, all vote.
    """
    bank = functional.normalize(train.x, dim=1)
    chunk = max(1, min(1024, 2**28 // len(bank)))  # at most 1 GiB of similarities
    correct = {k: torch.zeros((), dtype=torch.int64, device=bank.device) for k in sorted(ks)}
    for x, labels in zip(queries.x.split(chunk), queries.labels.split(chunk), strict=True):
        similarity, index = (functional.normalize(x, dim=1) @ bank.T).topk(min(max(ks), len(bank)), dim=1)
        # float64, so that the order of a GPU's additions does not decide between equal votes
        weights, voters = (similarity / KNN_TEMPERATURE).double().exp(), train.labels[index]  # (n, k), by similarity
        votes = weights.new_zeros(len(x), num_classes)
        for fewer, k in pairwise([0, *correct]):
            votes.scatter_add_(1, voters[:, fewer:k], weights[:, fewer:k])
            correct[k] += (votes.argmax(dim=1) == labels).sum()
    counts = torch.stack([*correct.values()]).tolist()
    return {k: count / len(queries.labels) for k, count in zip(correct, counts, strict=True)}


def heads_top1(heads: Tensor, split: Labelled) -> Tensor:
    """Top-1 (L,) of each of L linear heads (L, C, E + 1), biases in the last column."""
    weight, bias = heads[..., :-1].flatten(0, 1), heads[..., -1].flatten()
    correct = torch.zeros(len(heads), dtype=torch.int64, device=heads.device)
    rows = max(1, ROWS // len(heads))
    for x, labels in zip(split.x.split(rows), split.labels.split(rows), strict=True):
        logits = torch.addmm(bias, x, weight.T).unflatten(1, heads.shape[:2])  # (n, L, C)
        correct += (logits.argmax(dim=-1) == labels[:, None]).sum(dim=0)
    return correct / len(split.labels)


def softmax_minus_target(logits: Tensor, target: Tensor) -> Tensor:
    """Gradient of the cross-entropy with respect to logits (..., C); target: (..., 1), the classes."""
    error = logits.softmax(dim=-1)
    return error.scatter_add_(-1, target, error.new_full((), -1.0).expand(target.shape))
