"""Rectified LpJEPA, Figs. 3 b and 3 c: accuracy and non-zero fraction, measured and in theory, over mu and p."""

from analysis.table.pivot import PivotTable
from analysis.tables.demo_rectified_lpjepa import QUANTITIES

TITLE = "Rectified LpJEPA: sparsity and accuracy of online probes over the target RGG(p, mu)"
TABLE = PivotTable(rows={"method.mu": "mu"}, columns={"method.p": "p"}, quantities=QUANTITIES)
