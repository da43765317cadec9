"""LeJEPA, Table 1 c: the global batch."""

from analysis.table.pivot import PivotTable

TITLE = "LeJEPA: batch; online linear probe"
TABLE = PivotTable(columns={"global_batch": "global batch"})
