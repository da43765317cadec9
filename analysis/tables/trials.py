"""Any sweep without a table of its own: its trials by rank, what it varies, its objective and its test accuracy."""

import pandas as pd

from analysis.aggregate import axes, ranked

TITLE = "trials ranked by the sweep's objective on val"
METRICS = ("test/linear_top1", "test/knn_top1", "test/linear_projector_top1")
FORMATS = {"val/probe_top1": ".4f"} | dict.fromkeys(METRICS, ".4f")


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per trial: finished by rank, then the unfinished, then references. Headers are the store's names."""
    varied = [*axes(runs), *(["seed"] if runs["seed"].nunique() > 1 else [])]
    objective = runs["sweep.objective"].iloc[0]
    return ranked(runs, {name: (name, 1.0) for name in (*varied, objective, *METRICS)})
