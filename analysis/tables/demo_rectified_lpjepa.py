"""Rectified LpJEPA: accuracy and non-zero fraction, measured and in theory, over p and mu."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.cells import Quantity, percent
from analysis.table.pivot import pivot

TITLE = "Rectified LpJEPA: rows p, columns mu of the target RGG(p, mu)"
QUANTITIES = (
    percent("encoder top-1 (%)", "test/linear_top1", ".1f"),
    percent("projector top-1 (%)", "test/linear_projector_top1", ".1f"),
    Quantity(label="non-zero, measured", metric="test/nonzero_fraction", spec=".3f"),
    Quantity(label="non-zero, theory", metric="target/nonzero_fraction", spec=".3f"),
)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Blocks of rows: the four quantities; in each, rows p and columns mu. Side by side they would be too wide."""
    return pivot(cells(runs), rows={"method.p": "p"}, columns={"method.mu": "mu"}, quantities=QUANTITIES)
