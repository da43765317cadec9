"""The ledger: one MLflow experiment per sweep, one flat run per cell, found or created by its cell key."""

import getpass
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType

from jepa_train.flat import flatten
from jepa_train.paths import results_dir
from sweeps.engine.cells import Cell, shared_fields
from sweeps.engine.plan import Plan
from sweeps.engine.store import find_experiment, open_client, store_uri

_MLFLOW_STATUS = {"finished": "FINISHED", "diverged": "FINISHED", "collapsed": "FINISHED", "failed": "FAILED"}


class Ledger:
    """Writes one sweep's experiment, which is created here where it is missing: once, before any trial."""

    def __init__(self, plan: Plan, source: Path) -> None:
        sweep = plan.sweep
        results_dir().mkdir(parents=True, exist_ok=True)
        uri = store_uri()
        self._client = open_client(uri)
        self._source = source
        self._workers = sweep.workers
        experiment = find_experiment(sweep.name, uri)
        self._experiment_id = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(sweep.name, artifact_location=_artifacts(sweep.name, uri))
        )
        tags = {
            "sweep.file": str(source),
            "sweep.kind": "search" if sweep.space else "grid",
            "sweep.axes": json.dumps(sweep.axes),
            "sweep.objective": sweep.objective,
            "sweep.base": json.dumps(shared_fields(plan.base, sweep.axes), sort_keys=True),
            "sweep.grid": json.dumps({} if sweep.space else {**sweep.grid, "seed": sweep.seeds}, default=list),
            "sweep.references": json.dumps([cell.key for cell in plan.fixed if cell.role == "reference"]),
        }
        for key, value in tags.items():
            self._client.set_experiment_tag(self._experiment_id, key, value)
        for cell in plan.fixed:  # a reference of yesterday may be a cell of today's grid
            entry = plan.entries.get(cell.key)
            if entry is not None and entry.role != cell.role:
                self._client.set_tag(entry.run_id, "role", cell.role)

    def knows(self, cell: Cell) -> bool:
        """Whether the cell has a run, whatever became of it."""
        return bool(self._find(cell))

    def start(self, cell: Cell) -> str:
        """The id of the cell's run: the one it has, continued, or a new one with its complete config."""
        run_id = self._find(cell)
        if run_id:
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
        self._client.log_batch(run_id, metrics=rows)

    def end(self, run_id: str, status: str, reason: str, details: str = "") -> None:
        """Close a run: finished, diverged, collapsed, failed, or interrupted (which is run again)."""
        self._client.log_batch(run_id, tags=[RunTag("status", status), RunTag("reason", reason[:500])])
        if details:
            self._client.log_text(run_id, details, "traceback.txt")
        self._client.set_terminated(run_id, _MLFLOW_STATUS.get(status, "KILLED"))

    def describe(self, text: str) -> None:
        """Set the experiment's description, which the UI renders as Markdown above the runs."""
        self._client.set_experiment_tag(self._experiment_id, "mlflow.note.content", text)

    def _find(self, cell: Cell) -> str:
        """The id of the cell's run, "" where it has none."""
        found = self._client.search_runs(
            [self._experiment_id], f"tags.cell_key = '{cell.key}'", ViewType.ACTIVE_ONLY, max_results=1
        )
        return found[0].info.run_id if found else ""

    def _create(self, cell: Cell) -> Run:
        tags = {"cell_key": cell.key, "role": cell.role, "mlflow.user": _user()}
        run = self._client.create_run(self._experiment_id, run_name=cell.label, tags=tags)
        params = [Param(key, str(value)) for key, value in flatten(cell.config).items()]
        self._client.log_batch(run.info.run_id, params=params)
        data = cell.config.data
        dataset = Dataset(name=data.name, digest=data.fingerprint or "builtin", source_type="local", source=data.path)
        self._client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        return run


def _artifacts(name: str, uri: str) -> str | None:
    """Beside a local store, under results; a server decides for itself."""
    return (results_dir() / "artifacts" / name).as_uri() if uri.startswith("sqlite:") else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        return str(os.getuid())


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
