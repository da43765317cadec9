"""LeJEPA, Table 1 d: width of the projector's output against slices and width of the embedding."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.cells import percent
from analysis.table.pivot import pivot

TITLE = "LeJEPA: widths and slices; frozen linear probe top-1 (%)"


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows the projector's width, columns slices and, below them, the embedding's width."""
    return pivot(
        cells(runs),
        rows={"model.projector_dim": "projector_dim"},
        columns={"method.num_slices": "num_slices", "model.embed_dim": "embed_dim"},
        quantities=[percent("top-1 (%)", "test/linear_top1")],
    )
