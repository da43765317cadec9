"""Table of a sweep as data. analysis.tables.default builds it from the tag sweep.table."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jepa_train.base.errors import config_errors, nearest, require
from jepa_train.base.validation import conform
from jepa_train.evaluation.glossary import GLOSSARY


@dataclass(frozen=True, kw_only=True)
class Table:
    """Choices for the table of a sweep; a field that is left out is chosen as in the default table.

    Args:
        rows, columns: axes of the grid, the outermost level first. Axes in neither become further levels of rows.
        metrics: names with their split: "test/knn_top1", "val/probe_top1", "train/loss", or "train/<term>" for any
            term of the method's loss.
        labels: axis or metric -> header.
    """

    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    metrics: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @config_errors("table.")
    def __post_init__(self) -> None:
        conform(self)
        for metric in self.metrics:
            _check_metric(metric)
        _check_once("metrics", self.metrics)
        _check_once("rows and columns", (*self.rows, *self.columns))
        _check_once("labels", [*self.labels.values()])
        for key, label in self.labels.items():
            require(label.isprintable(), f"labels must be one line each, got {label!r} for {key}; remove the break")

    def check(self, axes: Sequence[str], grid: Sequence[str]) -> None:
        """Check the rules that need the sweep's axes, and those of its grid.

        Raises:
            ValueError: a row, column or label of no axis.
        """
        for name in ("rows", "columns"):
            for axis in getattr(self, name):
                remedy = nearest(axis, grid) if grid else "; leave it out"
                require(axis in grid, f"table.{name} must name axes of the grid, got {axis!r}{remedy}")
        for key in self.labels:
            require(
                key in axes or "/" in key,
                f"table.labels must be of an axis or a metric, got one of {key!r}{nearest(key, axes)}",
            )


def _check_once(name: str, values: Sequence[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    require(not twice, f"{name} must hold each value once, got {', '.join(map(repr, twice))} twice; keep one")


def _check_metric(name: str) -> None:
    """A term of a loss may have any name: only the method knows them."""
    split, _, metric = name.rpartition("/")
    known = split in ("val", "test", "target") or re.fullmatch(r"transfer/[^/]+", split)
    require(
        split == "train" or (bool(known) and metric in GLOSSARY),
        "metrics must be known, with their split (train/, val/, test/, target/, transfer/NAME/), got "
        f"{name!r}{nearest(name, [f'{split}/{term}' for term in GLOSSARY]) if known else '; try test/linear_top1'}",
    )
