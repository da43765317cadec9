"""Rectified LpJEPA, Fig. 3 a: rectified or Gaussian target against rectified or plain features."""

from analysis.table.cells import Quantity, percent
from analysis.table.pivot import PivotTable

TITLE = "Rectified LpJEPA: target distribution against features; online linear probes"
TABLE = PivotTable(
    rows={"target": "target"},
    columns={"features": "features"},
    quantities=(
        percent("encoder top-1 (%)", "test/probe_top1"),
        percent("projector top-1 (%)", "test/projector_top1"),
        Quantity(label="L0", metric="test/nonzero_fraction", direction="min", spec=".4f"),
    ),
)
