"""Reading the MLflow store: the cells of a sweep. Reading creates nothing."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, ViewType

from jepa_train.checks import ConfigError
from jepa_train.config import TrainConfig, parse, unflatten
from jepa_train.paths import results_dir

RESULTS = ("finished", "diverged", "collapsed")  # failed and interrupted cells are run again
_PAGE = 1000  # runs per query


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the ledger knows of one cell."""

    run_id: str
    key: str
    status: str
    role: str
    params: dict[str, str]
    metrics: dict[str, float]

    @property
    def done(self) -> bool:
        """Whether the cell has a result; divergence and collapse are results."""
        return self.status in RESULTS


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or one sqlite file in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results_dir() / 'mlflow.db'}"


def open_client(uri: str) -> MlflowClient:
    """A client of the store; a fresh sqlite file gets its schema now, by this one process."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    client = MlflowClient(uri)
    client.search_experiments(max_results=1)
    return client


def find_experiment(name: str, uri: str) -> Experiment | None:
    """A sweep's experiment, or None; MLflow itself would create a sqlite file that is not there.

    Raises:
        ConfigError: it has been deleted, and its name cannot be used until it is restored.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    experiment = open_client(uri).get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        raise ConfigError(
            f"name {name!r} belongs to a deleted experiment of this store; rename the sweep and its file, or restore "
            f"it with `mlflow experiments restore --experiment-id {experiment.experiment_id}`"
        )
    return experiment


def read_entries(experiment: Experiment, uri: str) -> list[Entry]:
    """Every cell of an experiment; runs without a cell key are somebody else's."""
    client = open_client(uri)
    entries: list[Entry] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], "", ViewType.ACTIVE_ONLY, max_results=_PAGE, page_token=token
        )
        entries += [
            Entry(
                run_id=run.info.run_id,
                key=run.data.tags["cell_key"],
                status=run.data.tags.get("status", "running"),
                role=run.data.tags.get("role", "cell"),
                params=run.data.params,
                metrics=run.data.metrics,
            )
            for run in page
            if "cell_key" in run.data.tags
        ]
        token = page.token
        if not token:
            return entries


def best_config(sweep: str) -> TrainConfig:
    """The config of a sweep's best finished cell, by its objective on val; references do not compete.

    Raises:
        ConfigError: the sweep has no finished cell in this store.
    """
    experiment = find_experiment(sweep, store_uri())
    entries = read_entries(experiment, store_uri()) if experiment is not None else []
    finished = [entry for entry in entries if entry.status == "finished" and entry.role == "cell"]
    if experiment is None or not finished:
        raise ConfigError(
            f"base is the best cell of sweep {sweep!r}, which has no finished cell in this store; "
            f"run python sweeps/{sweep}.py first"
        )
    objective = experiment.tags["sweep.objective"]
    best = max(finished, key=lambda entry: (entry.metrics.get(objective, float("-inf")), entry.key))
    return unflatten(parse((f"{key}={value}" for key, value in best.params.items()), base=TrainConfig()))
