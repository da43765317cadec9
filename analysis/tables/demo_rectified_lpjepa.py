"""Rectified LpJEPA: accuracy and non-zero fraction, measured and in theory, over p and mu."""

from analysis.table.cells import Quantity, percent
from analysis.table.pivot import PivotTable

TITLE = "Rectified LpJEPA: online probes and sparsity; rows p, columns mu of the target RGG(p, mu)"
# blocks of rows: side by side they would be too wide
QUANTITIES = (
    percent("encoder top-1 (%)", "test/probe_top1", ".1f"),
    percent("projector top-1 (%)", "test/projector_top1", ".1f"),
    Quantity(label="non-zero, measured", metric="test/nonzero_fraction", spec=".3f"),
    Quantity(label="non-zero, theory", metric="target/nonzero_fraction", spec=".3f"),
)
TABLE = PivotTable(rows={"method.p": "p"}, columns={"method.mu": "mu"}, quantities=QUANTITIES)
