"""The ledger: one MLflow experiment per sweep, one flat run per cell, found or created by its cell key."""

import getpass
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag, ViewType

from jepa_train.checks import ConfigError
from jepa_train.config import TrainConfig, flatten, parse, unflatten
from jepa_train.paths import results_dir
from sweeps.engine.cells import Cell
from sweeps.engine.spec import Sweep

RESULTS = ("finished", "diverged", "collapsed")  # failed and interrupted cells are run again
_MLFLOW_STATUS = {"finished": "FINISHED", "diverged": "FINISHED", "collapsed": "FINISHED", "failed": "FAILED"}
_PAGE = 1000  # runs per query
_BATCH = 1000  # metrics per call, MLflow's limit


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


class Ledger:
    """One sweep's experiment in the store, which is created here, once, before any trial."""

    def __init__(self, sweep: Sweep, source: Path) -> None:
        results_dir().mkdir(parents=True, exist_ok=True)
        self.uri = store_uri()
        self._source = source
        self._workers = sweep.workers
        self._client = open_client(self.uri)
        self.experiment_id = self._find_or_create(sweep)
        self._client.set_experiment_tag(self.experiment_id, "sweep.axes", json.dumps([*sweep.grid, *sweep.space]))
        self._client.set_experiment_tag(self.experiment_id, "sweep.kind", "search" if sweep.space else "grid")
        self._client.set_experiment_tag(self.experiment_id, "sweep.objective", sweep.objective)

    def entries(self) -> dict[str, Entry]:
        """Every cell of the sweep by its key."""
        return {entry.key: entry for entry in read_entries(self._client, self.experiment_id)}

    def start(self, cell: Cell) -> str:
        """The id of the cell's run: the one it has, continued, or a new one with its complete config."""
        found = self._client.search_runs(
            [self.experiment_id], f"tags.cell_key = '{cell.key}'", ViewType.ACTIVE_ONLY, max_results=1
        )
        if found:
            run_id = found[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
        else:
            run_id = self._create(cell).info.run_id
        tags = {"status": "running", "reason": "", "workers": str(self._workers), **_code_tags(self._source)}
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        return run_id

    def log(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """One epoch's metrics in one batch; those without a prefix, as epoch itself, are not logged."""
        now, step = int(time.time() * 1000), int(metrics["epoch"])
        rows = [Metric(name, value, now, step) for name, value in metrics.items() if "/" in name]
        for start in range(0, len(rows), _BATCH):
            self._client.log_batch(run_id, metrics=rows[start : start + _BATCH])

    def end(self, run_id: str, status: str, reason: str, details: str = "") -> None:
        """Close a run: finished, diverged, collapsed, failed, or interrupted (which is run again)."""
        self._client.log_batch(run_id, tags=[RunTag("status", status), RunTag("reason", reason[:500])])
        if details:
            self._client.log_text(run_id, details, "traceback.txt")
        self._client.set_terminated(run_id, _MLFLOW_STATUS.get(status, "KILLED"))

    def describe(self, text: str) -> None:
        """Set the experiment's description, which the UI renders as Markdown above the runs."""
        self._client.set_experiment_tag(self.experiment_id, "mlflow.note.content", text)

    def _find_or_create(self, sweep: Sweep) -> str:
        experiment = self._client.get_experiment_by_name(sweep.name)
        if experiment is None:
            return self._client.create_experiment(
                sweep.name, artifact_location=_artifacts(sweep.name, self.uri), tags={"sweep.file": str(self._source)}
            )
        if experiment.lifecycle_stage == "deleted":
            raise ConfigError(
                f"name {sweep.name!r} belongs to a deleted experiment of this store; rename the sweep and its file, or "
                f"restore it with `mlflow experiments restore --experiment-id {experiment.experiment_id}`"
            )
        _refuse_second_file(experiment, self._source)
        return experiment.experiment_id

    def _create(self, cell: Cell) -> Run:
        tags = {"cell_key": cell.key, "role": cell.role, "mlflow.user": getpass.getuser()}
        run = self._client.create_run(self.experiment_id, run_name=cell.label, tags=tags)
        params = [Param(key, str(value)) for key, value in flatten(cell.config).items()]
        self._client.log_batch(run.info.run_id, params=params)
        data = cell.config.data
        dataset = Dataset(name=data.name, digest=data.fingerprint or "builtin", source_type="local", source=data.path)
        self._client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        return run


def open_client(uri: str) -> MlflowClient:
    """A client of the store; a fresh sqlite file gets its schema now, by this one process."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    client = MlflowClient(uri)
    client.search_experiments(max_results=1)
    return client


def read_entries(client: MlflowClient, experiment_id: str) -> list[Entry]:
    """Every cell of an experiment; runs without a cell key are somebody else's."""
    entries, token = [], None
    while True:
        page = client.search_runs([experiment_id], "", ViewType.ACTIVE_ONLY, max_results=_PAGE, page_token=token)
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


def best_config(sweep: str, uri: str) -> TrainConfig:
    """The config of a sweep's best finished cell, by its objective on val; references do not compete.

    Raises:
        ConfigError: the sweep has no finished cell in this store.
    """
    client = open_client(uri)
    experiment = client.get_experiment_by_name(sweep)
    entries = read_entries(client, experiment.experiment_id) if experiment is not None else []
    finished = [entry for entry in entries if entry.status == "finished" and entry.role == "cell"]
    if experiment is None or not finished:
        raise ConfigError(
            f"base is the best cell of sweep {sweep!r}, which has no finished cell in this store; "
            f"run python sweeps/{sweep}.py first"
        )
    objective = experiment.tags["sweep.objective"]
    best = max(finished, key=lambda entry: (entry.metrics.get(objective, float("-inf")), entry.key))
    return unflatten(parse((f"{key}={value}" for key, value in best.params.items()), base=TrainConfig()))


def _refuse_second_file(experiment: Experiment, source: Path) -> None:
    """Two files that claim one name would mix their cells in one table; a file that was moved keeps its sweep."""
    other = Path(experiment.tags.get("sweep.file", ""))
    if other != source and other.is_file():
        raise ConfigError(
            f"name {experiment.name!r} must belong to one sweep file, but this store has it from {other}; "
            f"rename {source.name} and its sweep"
        )


def _artifacts(name: str, uri: str) -> str | None:
    """Beside a local store, under results; a server decides for itself."""
    return (results_dir() / "artifacts" / name).as_uri() if uri.startswith("sqlite:") else None


@cache
def _code_tags(source: Path) -> dict[str, str]:
    """Which code made a run: source file, git commit and dirtiness, versions."""
    root = Path(__file__).resolve().parents[2]
    packages = ("torch", "torchvision", "timm", "ray", "optuna", "mlflow")
    return {
        "mlflow.source.name": str(source),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": _git(root, "rev-parse", "HEAD") or "unknown",
        "git_dirty": str(bool(_git(root, "status", "--porcelain"))).lower(),
        "command": " ".join(sys.argv),
        "host": platform.node(),
        "version.python": platform.python_version(),
        **{f"version.{name}": importlib.metadata.version(name) for name in packages},
    }


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
