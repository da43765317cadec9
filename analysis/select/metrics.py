"""Metrics that the runs of a sweep have, whether or not the glossary of jepa_train explains them."""

import difflib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.select.selection import numbers
from analysis.store.uri import OneLineError

SPLITS = ("train/", "val/", "test/", "target/", "transfer/")
# the most important first, without their split: the papers report online probes, and by default these rank cells on val
ACCURACIES = ("probe_top1", "linear_top1", "knn_top1", "projector_top1", "linear_projector_top1")
RANK = "val/effective_rank"  # RankMe, for runs without labels
_PROTOCOLS = {  # name without its split
    r"(probe|projector)_top1": "online linear probe",
    r"(linear|sgd|plain_sgd|shot\d+)(_projector)?_top1": "offline linear probe",
    r"knn\d*(_projector)?_top1": "kNN",
    r"finetune\d*_top1": "fine-tuning",
}
_NO_TERMS = {
    "train/lr",
    "train/images_per_s",
    "train/peak_memory_gb",
    "train/skipped_images",
    "train/skipped_steps",
    "train/embedding_std",
    "train/nonzero_fraction",
}


class UnknownMetric(OneLineError, LookupError):
    """No run has the metric; the message is one line with the remedy."""


def metrics_of(runs: pd.DataFrame) -> list[str]:
    """The names of all metrics of which a run has a number, sorted."""
    names = sorted(name for name in map(str, runs) if name.startswith(SPLITS))
    return [name for name in names if np.isfinite(numbers(runs, name)).any()]


def loss_terms(runs: pd.DataFrame) -> list[str]:
    """The terms of a method's loss, its own included, without the loss itself."""
    found = (name for name in metrics_of(runs) if name.startswith("train/"))
    return [name for name in found if name not in _NO_TERMS and name != "train/loss"]


def accuracies(runs: pd.DataFrame) -> list[str]:
    """The measured accuracies on test, the most important first; those on val where the data has no test split.

    Without labels those on transfer sets, if any.
    """
    measured = [name for name in metrics_of(runs) if name.endswith("_top1")]
    for split in ("test/", "val/", "transfer/"):
        found = [name for name in measured if name.startswith(split)]
        first = [split + name for name in ACCURACIES if split + name in found]
        if found:
            return [*first, *(name for name in found if name not in first)]
    return []


def protocol_of(metric: str) -> str:
    """The protocol by which an accuracy was measured: numbers of different ones do not compare. "" for other metrics.

    An online probe is a linear layer that was trained along with the encoder; an offline one was fitted to its frozen
    features at the end, and is usually some points higher.
    """
    name = metric.rpartition("/")[2]
    return next((protocol for pattern, protocol in _PROTOCOLS.items() if re.fullmatch(pattern, name)), "")


def check_metrics(runs: pd.DataFrame, names: Sequence[str]) -> None:
    """Check the names of metrics that a user asks for.

    Raises:
        UnknownMetric: no run has one of them.
    """
    known = metrics_of(runs)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known) or 'none yet'}"
            raise UnknownMetric(f"no run of {runs['sweep'].iloc[0]} has the metric {name!r}; {remedy}")
