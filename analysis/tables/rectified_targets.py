"""Rectified LpJEPA, Table 1: targets and baselines by accuracy of encoder and projector and by sparsity."""

from analysis.table.cells import Quantity, percent
from analysis.table.pivot import PivotTable

TITLE = "Rectified LpJEPA: online linear probe top-1 (%) and sparsity"
TABLE = PivotTable(
    rows={"group": "group", "row": "target or method"},
    quantities=(
        percent("encoder top-1", "test/probe_top1"),
        percent("projector top-1", "test/projector_top1"),
        Quantity(label="L1", metric="test/l1_sparsity", direction="min", spec=".4f"),
        Quantity(label="L0", metric="test/nonzero_fraction", direction="min", spec=".4f"),
        Quantity(label="L0, theory", metric="target/nonzero_fraction", spec=".4f"),
    ),
    quantities_in="columns",
)
