"""LeJEPA, Table 1 c: the global batch."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.cells import percent
from analysis.table.pivot import pivot

TITLE = "LeJEPA: batch; frozen linear probe"


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """One row, columns global batches."""
    quantities = [percent("top-1 (%)", "test/linear_top1")]
    return pivot(cells(runs), rows={}, columns={"global_batch": "global batch"}, quantities=quantities)
