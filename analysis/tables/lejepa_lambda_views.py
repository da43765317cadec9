"""LeJEPA, Table 7 and Fig. 8: the weight lamb against the number of views."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.cells import percent
from analysis.table.pivot import pivot

TITLE = "LeJEPA: lamb against views; frozen linear probe top-1 (%)"
WITHIN = ("views",)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows views, columns lamb; each row has its best lamb."""
    found = cells(runs)
    found = found.assign(views=found["views.num_global"].astype(int) + found["views.num_local"].astype(int))
    quantities = [percent("top-1 (%)", "test/linear_top1")]
    return pivot(found, rows={"views": "views"}, columns={"method.lamb": "lamb"}, quantities=quantities)
