"""LeJEPA, Table 1 a: SIGReg's integration domain, slices and points."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.cells import percent
from analysis.table.pivot import pivot

TITLE = "LeJEPA: SIGReg's domain, slices and points; frozen linear probe top-1 (%)"


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows domain and slices, columns points."""
    found = cells(runs)
    found = found.assign(domain=[f"[-{t_max:g}, {t_max:g}]" for t_max in found["method.t_max"].astype(float)])
    return pivot(
        found,
        rows={"domain": "domain", "method.num_slices": "num_slices"},
        columns={"method.num_knots": "num_knots"},
        quantities=[percent("top-1 (%)", "test/linear_top1")],
    )
