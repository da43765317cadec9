"""Rectified LpJEPA: accuracy and non-zero fraction, measured and in theory, over p and mu."""

import pandas as pd

from analysis.aggregate import grid

TITLE = "Rectified LpJEPA: rows p, columns mu of the target RGG(p, mu)"
QUANTITIES = {
    "encoder top-1 (%)": ("test/linear_top1", 100.0),
    "projector top-1 (%)": ("test/linear_projector_top1", 100.0),
    "non-zero, measured": ("test/nonzero_fraction", 1.0),
    "non-zero, theory": ("target/nonzero_fraction", 1.0),
}
FORMATS = {
    "encoder top-1 (%)": ".1f",
    "projector top-1 (%)": ".1f",
    "non-zero, measured": ".3f",
    "non-zero, theory": ".3f",
}


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Blocks of rows: the four quantities; in each, rows p and columns mu. Entries are aggregate.Cell.

    The quantities lie below one another because four grids side by side are too wide for a terminal or a page.
    """
    return grid(runs, row="method.p", column="method.mu", quantities=QUANTITIES)
