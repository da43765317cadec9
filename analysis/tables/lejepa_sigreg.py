"""LeJEPA, Table 1 a: SIGReg's integration domain, slices and points."""

from analysis.table.pivot import PivotTable

TITLE = "LeJEPA: SIGReg's domain, slices and points; online linear probe top-1 (%)"
TABLE = PivotTable(
    rows={"domain": "domain", "method.num_slices": "num_slices"}, columns={"method.num_knots": "num_knots"}
)
