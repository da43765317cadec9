"""Rectified LpJEPA, Figs. 3 b and 3 c: accuracy and non-zero fraction, measured and in theory, over mu and p."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.pivot import pivot
from analysis.tables.demo_rectified_lpjepa import QUANTITIES

TITLE = "Rectified LpJEPA: sparsity and accuracy over the target RGG(p, mu)"


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Blocks of rows: the four quantities; in each, rows mu and columns p."""
    return pivot(cells(runs), rows={"method.mu": "mu"}, columns={"method.p": "p"}, quantities=QUANTITIES)
