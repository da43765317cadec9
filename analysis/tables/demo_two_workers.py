"""LeJEPA's best cell with one worker and with two: one global batch, so one result."""

import math
from typing import Any

import pandas as pd

from analysis.select.selection import current
from analysis.table.cells import Quantity, TableCell, cell_of

TITLE = "The best LeJEPA cell with one worker and with two"
SWEEPS = ("demo_lejepa", "demo_two_workers")
METRICS = (
    "train/loss",
    "train/invariance",
    "train/sigreg",
    "val/probe_top1",
    "test/probe_top1",
    "test/projector_top1",
    "test/linear_top1",
    "test/knn_top1",
)
DIFFERENCE = Quantity(label="difference", metric="difference", spec="+.2g")


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows metrics, columns 1 worker, 2 workers, difference; the pair has one cell key.

    The latest of several cells with two workers counts: the best cell may have changed since the first.
    """
    two = current(runs[runs["sweep"] == SWEEPS[1]]).sort_values("start_time").tail(1)
    one = runs[(runs["sweep"] == SWEEPS[0]) & runs["cell_key"].isin(two["cell_key"])]
    rows: list[list[Any]] = []
    for metric in METRICS:
        quantity = Quantity(label=metric, metric=metric, spec=".4f")
        pair = [cell_of(one, quantity), cell_of(two, quantity)]
        difference = pair[1].mean - pair[0].mean
        rows.append([*pair, TableCell() if math.isnan(difference) else TableCell((difference,), quantity=DIFFERENCE)])
    columns = ["1 worker", "2 workers", "difference"]
    return pd.DataFrame(rows, index=pd.Index(METRICS, name="metric"), columns=columns, dtype=object)
