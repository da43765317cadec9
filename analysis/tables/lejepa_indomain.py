"""LeJEPA, Table 5: pre-training and evaluation on one data set, by encoder, each with its best setting on val."""

import pandas as pd

from analysis.select.compared import best_over, cells
from analysis.select.labels import with_models
from analysis.select.selection import axes
from analysis.table.cells import percent
from analysis.table.pivot import pivot

TITLE = "LeJEPA: pre-training on the data set itself; frozen linear probe top-1 (%)"
WITHIN = ("data set",)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows encoders, columns data sets; every axis but these is chosen on val."""
    free = [axis for axis in axes(runs) if axis not in ("model.encoder", "data.name", "data.path", "data.fingerprint")]
    found, how = best_over(with_models(cells(runs)), free)
    return pivot(
        found,
        rows={"encoder": "model"},
        columns={"dataset": "data set"},
        quantities=[percent("top-1 (%)", "test/linear_top1")],
        free=free,
        notes=[how],
    )
