"""LeJEPA, Table 5: pre-training and evaluation on one data set, by encoder, each with its best setting on val."""

import pandas as pd

from analysis.select.compared import best_over, cells
from analysis.select.selection import axes
from analysis.table.pivot import PivotTable

TITLE = "LeJEPA: pre-training on the data set itself; online linear probe top-1 (%)"
WITHIN = ("data set",)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows encoders, columns data sets; every axis but these is chosen on val."""
    free = [axis for axis in axes(runs) if axis not in ("model.encoder", "data.name", "data.path", "data.fingerprint")]
    found, how = best_over(cells(runs), free)
    return PivotTable(rows={"encoder": "model"}, columns={"dataset": "data set"}).of(found, free=free, notes=[how])
