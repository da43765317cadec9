"""Rectified LpJEPA, Table 1: targets and baselines by accuracy of encoder and projector and by sparsity."""

import pandas as pd

from analysis.select.compared import cells
from analysis.select.labels import with_methods
from analysis.table.cells import Quantity, percent
from analysis.table.pivot import pivot

TITLE = "Rectified LpJEPA: linear probe top-1 (%) and sparsity"
QUANTITIES = (
    percent("encoder top-1", "test/linear_top1"),
    percent("projector top-1", "test/linear_projector_top1"),
    Quantity(label="L1", metric="test/l1_sparsity", direction="min", spec=".4f"),
    Quantity(label="L0", metric="test/nonzero_fraction", direction="min", spec=".4f"),
    Quantity(label="L0, theory", metric="target/nonzero_fraction", spec=".4f"),
)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per target or method, in the groups ours, sparse and dense; a column per quantity."""
    rows = {"group": "group", "row": "target or method"}
    found = with_methods(cells(runs))
    return pivot(found, rows=rows, columns={}, quantities=QUANTITIES, quantities_in="columns")
