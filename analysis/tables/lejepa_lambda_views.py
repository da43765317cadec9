"""LeJEPA, Table 7 and Fig. 8: the weight lamb against the number of views."""

from analysis.table.pivot import PivotTable

TITLE = "LeJEPA: lamb against views; online linear probe top-1 (%)"
WITHIN = ("views",)  # each row has its best lamb
TABLE = PivotTable(rows={"views": "views"}, columns={"method.lamb": "lamb"})
