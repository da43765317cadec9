"""LeJEPA, Table 1 e: register tokens."""

from analysis.table.pivot import PivotTable

TITLE = "LeJEPA: register tokens; online linear probe top-1 (%)"
TABLE = PivotTable(rows={"method.num_slices": "num_slices"}, columns={"model.register_tokens": "register tokens"})
