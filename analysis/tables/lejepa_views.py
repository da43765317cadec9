"""LeJEPA, Table 1 b: numbers of views and of global views."""

import pandas as pd

from analysis.select.compared import cells
from analysis.select.labels import labelled
from analysis.table.pivot import PivotTable

TITLE = "LeJEPA: views; online linear probe top-1 (%)"


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows all views, columns global ones; a note on the global batch of each number of views, if they differ."""
    table, found = PivotTable(rows={"views": "views"}, columns={"views.num_global": "global views"}), cells(runs)
    keys = ("views", "views.num_global", "global_batch")
    places = sorted({*zip(*(labelled(found, keys)[key] for key in keys), strict=True)})
    texts = [f"{batch} with {views} views, {own} global" for views, own, batch in places]
    several = found["global_batch"].nunique() > 1
    return table.of(found, notes=[f"global batch: {', '.join(texts)}"] if several else [])
