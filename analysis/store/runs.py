"""Runs of sweeps as tidy frames, from an MLflow store or a folder of exports. Reading never creates a store.

analysis.runs has the runs that a sweep asks for; here are all.
"""

from collections.abc import Sequence

import pandas as pd
from mlflow.entities import Experiment

from analysis.store.sources import RunSource, open_source
from analysis.store.uri import NothingToShow as NothingToShow
from analysis.store.uri import store_uri as store_uri


def sweeps_in(store: str | RunSource) -> dict[str, Experiment]:
    """The sweeps of a store or a folder of exports, by name; experiments without sweep tags are left out."""
    return open_source(store).sweeps()


def has_runs(experiment: Experiment, store: str | RunSource) -> bool:
    """True if a sweep's experiment holds the run of any cell."""
    return open_source(store).has_runs(experiment)


def all_runs(sweep: str, store: str | RunSource | None = None) -> pd.DataFrame:
    """One row per cell that the sweep ever ran, oldest first; deleted, foreign and incomplete runs are left out.

    Columns: every parameter under its dotted name, as int, float, bool or str; every metric under its name, its last
    value, except those of the machine (system/); run_name, cell_key, role, status, reason, workers, epoch (the last
    one logged), device_seconds, commit, user and the other tags; run_id, start_time, end_time; sweep, and the
    experiment's tags: sweep.file, sweep.kind, sweep.goals, sweep.axes, sweep.searched, sweep.seeds, sweep.base,
    sweep.grid, sweep.total, sweep.references, sweep.overrides, sweep.later and sweep.types, those of structure as JSON,
    and the list of its cells and the digest of its file (see analysis.store.cell_list); absent where the store does not
    have them.
    `base` is, as JSON, the configuration that the cells of one version of the sweep share and that decides their
    results, without axes and seed. Types are those that the launch recorded; in older stores they are inferred from the
    values.

    Of several runs of one cell the finished one counts, else the latest. attrs["notes"] counts the runs left out.

    Args:
        store: an MLflow URI or the path of a folder of exports, which give equal frames; or one that is open.

    Raises:
        NothingToShow: no such store or sweep, or no run in it; or the store cannot be read.
    """
    return open_source(store).runs(sweep)


def histories_of(runs: pd.DataFrame, metrics: Sequence[str] = (), store: str | RunSource | None = None) -> pd.DataFrame:
    """Curves of several metrics (no name: all) of a sweep's runs, long: run_id, cell_key, run_name, metric, epoch,
    value.

    An epoch that was logged again, after a restart, has its last value. Sorted by the order of the runs, of the named
    metrics, and of the epochs.
    """
    points = open_source(store).points(runs["sweep"].iloc[0], runs["run_id"].tolist(), metrics)
    points = points[["run_id", "metric", "epoch", "value"]]
    points = points.assign(metric=pd.Categorical(points["metric"], [*metrics] or sorted(points["metric"].unique())))
    points = points.sort_values(["metric", "epoch"]).astype({"metric": str})
    return runs[["run_id", "cell_key", "run_name"]].merge(points, on="run_id")  # without deleted and foreign runs
