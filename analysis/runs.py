"""The store's runs as tidy frames. Reading never creates a store."""

import json
import logging
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment

from analysis.records import Record, as_measured, read_records, sqlite_file

LOG = logging.getLogger(__name__)
PLACES = {"data.path", "data.download"}  # parameters that say where data lies: they decide no result
_TAGS = {
    "mlflow.runName": "run_name",
    "mlflow.user": "user",
    "mlflow.source.name": "source",
    "mlflow.source.git.commit": "commit",
}
_STATUS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}  # for runs without the tag
_PAGE = 1000  # experiments per query


class NothingToShow(LookupError):
    """The store or the sweep is not there yet; the message is one line that names the command which fills it."""


def store_uri(results: str = "results") -> str:
    """MLFLOW_TRACKING_URI, or the sqlite file in JEPA_RESULTS, or in the given results folder."""
    folder = Path(os.environ.get("JEPA_RESULTS") or results).expanduser().absolute()
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"


def open_store(store: str) -> MlflowClient:
    """A client that reads the store.

    Raises:
        NothingToShow: a sqlite store whose file is missing or not MLflow's; MLflow itself would create one there.
    """
    file = sqlite_file(store)
    if file is not None and not _is_store(file):
        raise NothingToShow(f"there is no MLflow store at {file} yet; python sweeps/demo_lejepa.py creates one")
    for name in ("mlflow", "alembic"):  # they tell of every connection
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(store)


def sweeps_in(store: str) -> dict[str, Experiment]:
    """The sweeps of the store by name; other people's experiments lack the sweep tags."""
    found: dict[str, Experiment] = {}
    client, token = open_store(store), None
    while True:
        page = client.search_experiments(max_results=_PAGE, page_token=token)
        found |= {item.name: item for item in page if any(tag.startswith("sweep.") for tag in item.tags)}
        token = page.token
        if not token:
            return found


def has_runs(experiment: Experiment, store: str) -> bool:
    """Whether a sweep's experiment holds the run of any cell."""
    return bool(open_store(store).search_runs([experiment.experiment_id], "tags.cell_key != ''", max_results=1))


def load_runs(sweep: str, store: str | None = None) -> pd.DataFrame:
    """One row per cell of the sweep, oldest first; runs that are deleted or have no cell key are left out.

    Columns: every parameter under its dotted name, as int, float, bool or str; every metric under its name, its last
    value; run_name, cell_key, role, status, reason, workers, epoch (the last one logged), commit, user and the other
    tags; run_id, start_time, end_time; sweep, and the experiment's tags: sweep.kind, sweep.goals, sweep.axes,
    sweep.searched, sweep.seeds, sweep.base, sweep.grid and sweep.references, those of structure as JSON, absent where
    the store does not have them. `base` is, as JSON, the configuration that the cells of one version of the sweep
    share: what decides their results, but axes and seed.

    Raises:
        NothingToShow: no such store or sweep, or no run in it.
    """
    store = store or store_uri()
    client = open_store(store)
    experiment = _experiment(client, sweep, store)
    runs = _cells(read_records(client, experiment.experiment_id, store), sweep)
    if not runs:
        raise NothingToShow(_fill(sweep, store))
    shared = _shared_by(experiment, runs)
    about = {"sweep": sweep} | {key: text for key, text in experiment.tags.items() if key.startswith("sweep.")}
    frame = pd.DataFrame([about | _row(run, shared) for run in runs])
    for name in {"workers", "epoch"} & {*frame} | {name for run in runs for name in run.params}:
        frame[name] = typed(frame[name])
    for name in ("start_time", "end_time"):
        frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
    return frame


def load_history(sweep: str, metric: str, store: str | None = None) -> pd.DataFrame:
    """The curve of a metric for every run, long: run_id, cell_key, run_name, epoch, value.

    An epoch that was logged again, after a restart, counts with its last value.

    Raises:
        NothingToShow: no such store or sweep, or no run in it.
    """
    store = store or store_uri()
    client = open_store(store)
    rows: list[dict[str, Any]] = []
    for run in load_runs(sweep, store).itertuples():
        latest = {point.step: point.value for point in client.get_metric_history(run.run_id, metric)}  # oldest first
        who = {"run_id": run.run_id, "cell_key": run.cell_key, "run_name": run.run_name}
        rows += [who | {"epoch": epoch, "value": as_measured(latest[epoch])} for epoch in sorted(latest)]
    return pd.DataFrame(rows, columns=["run_id", "cell_key", "run_name", "epoch", "value"])


def load_histories(sweep: str, metrics: Iterable[str], store: str | None = None) -> pd.DataFrame:
    """The curves of several metrics, one below the other: the columns of load_history, and `metric`."""
    parts = [load_history(sweep, metric, store).assign(metric=metric) for metric in metrics]
    columns = ["run_id", "cell_key", "run_name", "metric", "epoch", "value"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def typed(texts: pd.Series) -> pd.Series:
    """A column of texts as int, float or bool where every text is one, else as it is."""
    present = texts.dropna().astype(str)
    if present.empty:
        return texts
    if present.isin(["True", "False"]).all():
        return texts.map({"True": True, "False": False})
    if present.str.fullmatch(r"[+-]?\d{1,15}").all():
        return pd.to_numeric(texts).astype("Int64" if texts.isna().any() else "int64")
    if present.str.fullmatch(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|inf|nan)").all():
        return texts.astype(float)
    return texts


def _is_store(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            query = "select 1 from sqlite_master where name = 'experiments'"
            return connection.execute(query).fetchone() is not None
    except sqlite3.DatabaseError:
        return False


def _experiment(client: MlflowClient, sweep: str, store: str) -> Experiment:
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise NothingToShow(_fill(sweep, store))
    return experiment


def _fill(sweep: str, store: str) -> str:
    return f"sweep {sweep} has no runs in {store} yet; python sweeps/{sweep}.py fills it"


def _cells(records: Iterable[Record], sweep: str) -> list[Record]:
    """The records of cells; the sweep's own run, which keeps the plan, is none, and foreign ones are counted."""
    of_sweep = [record for record in records if record.tags.get("role") != "plan"]
    cells = [record for record in of_sweep if "cell_key" in record.tags]
    if len(cells) < len(of_sweep):
        LOG.warning("%s: %d runs without a cell key skipped", sweep, len(of_sweep) - len(cells))
    return cells


def _row(run: Record, shared: Iterable[str]) -> dict[str, Any]:
    tags = {_TAGS.get(key, key): text for key, text in run.tags.items()}
    tags = {key: text for key, text in tags.items() if not key.startswith("mlflow.")}
    usual = {"role": "cell", "status": _STATUS.get(run.status, "running"), "reason": "", "workers": None}
    return {
        **usual,
        **{"run_id": run.run_id, "run_name": run.name, "start_time": run.start_time, "end_time": run.end_time},
        **run.params,
        **run.metrics,
        **tags,
        "base": json.dumps({key: run.params[key] for key in shared if key in run.params}, sort_keys=True),
    }


def _shared_by(experiment: Experiment, runs: Iterable[Record]) -> list[str]:
    """The parameters that the cells of one version of the sweep have in common and that decide results.

    As the sweep's file said at its last launch; a store from before that tag: all but axes, seed and places.
    """
    if "sweep.base" in experiment.tags:
        return [*json.loads(experiment.tags["sweep.base"])]
    axes = json.loads(experiment.tags.get("sweep.axes", "[]"))
    free = {*axes, *PLACES, "seed"}
    names = {name for run in runs for name in run.params if name not in free}
    return sorted(name for name in names if "method" not in axes or not name.startswith("method."))
