"""The store's runs as tidy frames. Reading never creates a store."""

import json
import logging
import os
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType

LOG = logging.getLogger(__name__)
PLACES = {"data.path", "data.download"}  # parameters that say where data lies: they decide no result
_TAGS = {
    "mlflow.runName": "run_name",
    "mlflow.user": "user",
    "mlflow.source.name": "source",
    "mlflow.source.git.commit": "commit",
}
_STATUS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}  # for runs without the tag
_PAGE = 1000  # runs per query


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
    if store.startswith("sqlite:///"):
        file = Path(store.removeprefix("sqlite:///").partition("?")[0])
        if not _is_store(file):
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
    """Whether a sweep's experiment holds any cell's run."""
    return bool(open_store(store).search_runs([experiment.experiment_id], "tags.cell_key LIKE '%'", max_results=1))


def load_runs(sweep: str, store: str | None = None) -> pd.DataFrame:
    """One row per run of the sweep, oldest first, deleted runs and runs without a cell key left out.

    Columns: every parameter under its dotted name, as int, float, bool or str; every metric under its name, its last
    value; run_name, cell_key, role, status, reason, workers, commit, user and the other tags; run_id, start_time,
    end_time; sweep, and the experiment's tags: sweep.kind, sweep.objective, sweep.axes, sweep.base, sweep.grid and
    sweep.references, those of structure as JSON, absent where the store does not have them. `base` is, as JSON, the
    configuration that the cells of one version of the sweep share: all parameters but axes, seed and paths.

    Raises:
        NothingToShow: no such store or sweep, or no run in it.
    """
    store = store or store_uri()
    client = open_store(store)
    experiment = _experiment(client, sweep, store)
    runs = [run for run in _all_runs(client, experiment) if "cell_key" in run.data.tags]
    if not runs:
        raise NothingToShow(_fill(sweep, store))
    axes = json.loads(experiment.tags.get("sweep.axes", "[]"))
    about = {"sweep": sweep} | {key: text for key, text in experiment.tags.items() if key.startswith("sweep.")}
    runs.sort(key=lambda run: (run.info.start_time, run.info.run_id))
    frame = pd.DataFrame([about | _row(run, axes) for run in runs])
    for name in {name for run in runs for name in run.data.params}:
        frame[name] = typed(frame[name])
    frame["workers"] = typed(frame["workers"])
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
        rows += [who | {"epoch": epoch, "value": _finite_or_inf(latest[epoch])} for epoch in sorted(latest)]
    return pd.DataFrame(rows, columns=["run_id", "cell_key", "run_name", "epoch", "value"])


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


def _all_runs(client: MlflowClient, experiment: Experiment) -> list[Run]:
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], "", ViewType.ACTIVE_ONLY, max_results=_PAGE, page_token=token
        )
        runs += page
        token = page.token
        if not token:
            break
    foreign = sum("cell_key" not in run.data.tags and run.data.tags.get("role") != "plan" for run in runs)
    if foreign:
        LOG.warning("%s: %d runs without a cell key skipped", experiment.name, foreign)
    return runs


def _row(run: Run, axes: Iterable[str]) -> dict[str, Any]:
    tags = {_TAGS.get(key, key): text for key, text in run.data.tags.items()}
    tags = {key: text for key, text in tags.items() if not key.startswith("mlflow.")}
    usual = {"role": "cell", "status": _STATUS.get(run.info.status, "running"), "reason": "", "workers": None}
    return {
        **usual,
        **{"run_id": run.info.run_id, "run_name": run.info.run_name},
        **{"start_time": run.info.start_time, "end_time": run.info.end_time},
        **run.data.params,
        **{name: _finite_or_inf(value) for name, value in run.data.metrics.items()},
        **tags,
        "base": _base(run.data.params, set(axes)),
    }


def _base(params: Mapping[str, str], axes: set[str]) -> str:
    free = axes | PLACES | {"seed"}
    shared = {key: text for key, text in params.items() if key not in free}
    if "method" in axes:  # each method brings its own hyper-parameters
        shared = {key: text for key, text in shared.items() if not key.startswith("method.")}
    return json.dumps(shared, sort_keys=True)


def _finite_or_inf(value: float) -> float:
    """MLflow's sqlite store writes an infinity as the largest float."""
    return float("inf") * value if abs(value) == sys.float_info.max else value
