"""LeJEPA: trials by rank on val, test accuracy, and the randomly initialised encoder."""

import pandas as pd

from analysis.table.cells import Quantity
from analysis.table.ranking import ranked

TITLE = "LeJEPA: trials ranked by the probe on val; top-1 in %"
COLUMNS = (
    Quantity(label="lamb", metric="method.lamb", spec=".2g"),
    Quantity(label="slices", metric="method.num_slices"),
    Quantity(label="lr", metric="optim.lr", spec=".2g"),
    Quantity(label="weight decay", metric="optim.weight_decay", spec=".2g"),
    Quantity(label="val probe", metric="val/probe_top1", factor=100.0, spec=".1f"),
    Quantity(label="test probe", metric="test/probe_top1", factor=100.0, spec=".1f"),
    Quantity(label="test linear", metric="test/linear_top1", factor=100.0, spec=".1f"),
    Quantity(label="test kNN", metric="test/knn_top1", factor=100.0, spec=".1f"),
    Quantity(label="test probe, projector", metric="test/projector_top1", factor=100.0, spec=".1f"),
)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per trial: finished ones by rank, then the unfinished, then "random init"."""
    return ranked(runs, COLUMNS)
