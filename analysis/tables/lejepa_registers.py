"""LeJEPA, Table 1 e: register tokens."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.cells import percent
from analysis.table.pivot import pivot

TITLE = "LeJEPA: register tokens; frozen linear probe top-1 (%)"


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows slices, columns register tokens."""
    return pivot(
        cells(runs),
        rows={"method.num_slices": "num_slices"},
        columns={"model.register_tokens": "register tokens"},
        quantities=[percent("top-1 (%)", "test/linear_top1")],
    )
