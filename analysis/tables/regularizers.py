"""Regularizers of z: accuracy, time, memory, and gradient as z shrinks, over batch and slices."""

import pandas as pd

from analysis.select.compared import cells
from analysis.select.selection import numbers
from analysis.table.cells import Quantity, percent
from analysis.table.pivot import PivotTable

WITHIN = ("batch",)
TITLE = "Regularizers: online linear probe top-1 (%), cost of a step, and gradient norm at z, z/10, z/100, z/1000"
_LAYOUT = PivotTable(
    rows={"method_name": "method", "global_batch": "batch", "method.num_slices": "slices"},
    quantities=(
        percent("top-1", "test/probe_top1"),
        Quantity(label="ms per step", metric="ms", spec=".1f"),
        Quantity(label="memory (GB)", metric="train/peak_memory_gb", spec=".2f"),
        *(
            Quantity(label=label, metric=f"test/gradient_at_{factor}", spec=".2g")
            for label, factor in (("|g| at z", "1"), ("z/10", "0.1"), ("z/100", "0.01"), ("z/1000", "0.001"))
        ),
    ),
    quantities_in="columns",
)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per method, batch and number of slices. The time is that of the whole step, views and encoder included."""
    found = cells(runs)
    return _LAYOUT.of(found.assign(ms=1e3 * numbers(found, "global_batch") / numbers(found, "train/images_per_s")))
