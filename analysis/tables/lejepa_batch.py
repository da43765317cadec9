"""LeJEPA, Table 1 c: the global batch."""

import pandas as pd

from analysis.aggregate import percent
from analysis.compared import cells
from analysis.pivot import pivot

TITLE = "LeJEPA: batch; frozen linear probe"


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """One row, columns global batches."""
    quantities = [percent("top-1 (%)", "test/linear_top1")]
    return pivot(cells(runs), rows={}, columns={"global_batch": "global batch"}, quantities=quantities)
