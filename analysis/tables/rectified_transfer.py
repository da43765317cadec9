"""Rectified LpJEPA, Tables 3 to 8: transfer to other data sets, by shots, of encoder and of projector features."""

import pandas as pd

from analysis.table.pivot import transfer

TITLE = "Rectified LpJEPA: offline linear probe top-1 (%) on other data sets"
SWEEPS = ("rectified_targets",)
PROTOCOLS = {
    (features, shots): f"{name}{part}_top1"
    for features, part in (("encoder", ""), ("projector", "_projector"))
    for shots, name in (("1", "shot1"), ("10", "shot10"), ("all", "linear"))
}


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """A block of rows per features and shots, each one of the paper's tables; a column per data set, and their mean."""
    rows = {"group": "group", "row": "target or method"}
    return transfer(runs, rows=rows, protocols=PROTOCOLS, names=("features", "shots"))
