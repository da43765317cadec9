"""LeJEPA: trials by rank on val, test accuracy, and the randomly initialised encoder."""

import pandas as pd

from analysis.aggregate import ranked

TITLE = "LeJEPA: trials ranked by the probe on val; top-1 in %"
COLUMNS = {
    "lamb": ("method.lamb", 1.0),
    "slices": ("method.num_slices", 1.0),
    "lr": ("optim.lr", 1.0),
    "weight decay": ("optim.weight_decay", 1.0),
    "val probe": ("val/probe_top1", 100.0),
    "test linear": ("test/linear_top1", 100.0),
    "test kNN": ("test/knn_top1", 100.0),
    "test linear, projector": ("test/linear_projector_top1", 100.0),
}
FORMATS = {
    "lamb": ".2g",
    "lr": ".2g",
    "weight decay": ".2g",
    "val probe": ".1f",
    "test linear": ".1f",
    "test kNN": ".1f",
    "test linear, projector": ".1f",
}


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per trial: finished by rank, then the unfinished, then "random init"."""
    return ranked(runs, COLUMNS)
