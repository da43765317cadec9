"""Rectified LpJEPA, Fig. 3 a: rectified or Gaussian target against rectified or plain features."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.cells import Quantity, percent
from analysis.table.pivot import pivot

TITLE = "Rectified LpJEPA: target distribution against features"
QUANTITIES = (
    percent("encoder top-1 (%)", "test/linear_top1"),
    percent("projector top-1 (%)", "test/linear_projector_top1"),
    Quantity(label="L0", metric="test/nonzero_fraction", direction="min", spec=".4f"),
)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Blocks of rows: the quantities; in each, a row per target and a column per kind of features."""
    found = cells(runs)
    found = found.assign(
        target=found["method.target"].map({"rgg": "RGN", "gg": "GN"}),
        features=found["method.rectified"].astype(str).map({"True": "z+ = ReLU(z)", "False": "z"}),
    )
    return pivot(found, rows={"target": "target"}, columns={"features": "features"}, quantities=QUANTITIES)
