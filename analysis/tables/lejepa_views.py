"""LeJEPA, Table 1 b: numbers of views and of global views."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.cells import percent
from analysis.table.pivot import pivot

TITLE = "LeJEPA: views; frozen linear probe top-1 (%)"


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows all views, columns global ones."""
    found = cells(runs)
    found = found.assign(views=found["views.num_global"].astype(int) + found["views.num_local"].astype(int))
    return pivot(
        found,
        rows={"views": "views"},
        columns={"views.num_global": "global views"},
        quantities=[percent("top-1 (%)", "test/linear_top1")],
        notes=[batches(found)],
    )


def batches(found: pd.DataFrame) -> str:
    """Note on the global batch of each number of views, if they differ."""
    pairs = sorted({*zip(found["views"], found["views.num_global"], found["global_batch"], strict=True)})
    if len({batch for _, _, batch in pairs}) < 2:
        return ""
    return "global batch: " + ", ".join(f"{batch} with {views} views, {own} global" for views, own, batch in pairs)
