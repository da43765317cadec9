"""Public import path of runs: sweeps of an MLflow store, or of an export, as data frames."""

from collections.abc import Sequence

import pandas as pd

from analysis.select.selection import requested
from analysis.store.runs import NothingToShow, all_runs, has_runs, histories_of, store_uri, sweeps_in
from analysis.store.sources import RunSource, open_source

__all__ = ["NothingToShow", "has_runs", "load_histories", "load_history", "load_runs", "store_uri", "sweeps_in"]


def load_runs(sweep: str, store: str | RunSource | None = None, *, stale: bool = False) -> pd.DataFrame:
    """One row per cell and reference that the sweep asks for, oldest first. See analysis.store.runs.all_runs.

    Args:
        store: an MLflow URI or the path of a folder of exports; or one that is open.
        stale: also the runs that the sweep's last launch did not ask for: those of an earlier base or grid.

    Raises:
        NothingToShow: no such store or sweep, or no such run in it; or the store cannot be read.
    """
    runs = all_runs(sweep, store)
    found = runs if stale else requested(runs)
    if found.empty:
        raise NothingToShow(
            f"sweep {sweep} has {len(runs)} runs, but none that its last launch asked for; launch it again"
        )
    return found


def load_history(sweep: str, metric: str, store: str | RunSource | None = None, *, stale: bool = False) -> pd.DataFrame:
    """The curve of a metric for every run, long: run_id, cell_key, run_name, epoch, value.

    An epoch that was logged again, after a restart, has its last value.

    Args:
        stale: see load_runs.

    Raises:
        NothingToShow: see load_runs.
    """
    return load_histories(sweep, [metric], store, stale=stale).drop(columns="metric")


def load_histories(
    sweep: str, metrics: Sequence[str] = (), store: str | RunSource | None = None, *, stale: bool = False
) -> pd.DataFrame:
    """Curves of several metrics (no name: all) of every run, long: run_id, cell_key, run_name, metric, epoch, value.

    Sorted by the order of load_runs, of the named metrics, and of the epochs.

    Args:
        stale: see load_runs.

    Raises:
        NothingToShow: see load_runs.
    """
    source = open_source(store)
    return histories_of(load_runs(sweep, source, stale=stale), metrics, source)
