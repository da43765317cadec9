"""LeJEPA, Table 2: few-shot transfer of frozen encoders to other data sets."""

import pandas as pd

from analysis.table.pivot import transfer

TITLE = "LeJEPA: frozen encoder, offline linear probe top-1 (%) on other data sets"
PROTOCOLS = {("1",): "shot1_top1", ("10",): "shot10_top1", ("all",): "linear_top1"}


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """A block of rows per number of shots, with a row per encoder; a column per data set, and their mean."""
    rows = {"encoder": "model", "dataset": "pretrained on", "epochs": "epochs"}
    return transfer(runs, rows=rows, protocols=PROTOCOLS, names=("shots",))
