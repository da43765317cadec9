"""The ledger: one MLflow experiment per sweep, one flat run per cell, found or created by its cell key."""

import dataclasses
import getpass
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType

from jepa_train.config import TrainConfig
from jepa_train.flat import Scalar, flatten, unflatten
from jepa_train.paths import results_dir
from sweeps.engine.cells import Cell, shared_fields
from sweeps.engine.plan import Plan
from sweeps.engine.spec import Sweep
from sweeps.engine.store import RESULTS, Entry, find_experiment, open_client, store_uri

_MLFLOW_STATUS = dict.fromkeys((*RESULTS, "pruned"), "FINISHED") | {"failed": "FAILED"}


@dataclass
class _Open:
    """A run that is being written."""

    run_id: str
    before: float  # device-seconds of earlier attempts
    devices: float
    started: float = field(default_factory=time.monotonic)

    @property
    def device_seconds(self) -> float:
        return self.before + self.devices * (time.monotonic() - self.started)


class Ledger:
    """Writes one sweep's experiment, which is created here where it is missing: once, before any trial."""

    def __init__(self, plan: Plan, source: Path) -> None:
        sweep = plan.sweep
        results_dir().mkdir(parents=True, exist_ok=True)
        uri = store_uri()
        self._client = open_client(uri)
        self._source = source
        self._workers = sweep.workers
        self._open: dict[str, _Open] = {}
        self.table = ""  # the latest published Markdown
        experiment = find_experiment(sweep.name, uri)
        self._experiment_id = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(sweep.name, artifact_location=_artifacts(sweep.name, uri))
        )
        tags = {
            "sweep.file": str(source),
            "sweep.kind": sweep.kind,
            "sweep.axes": json.dumps(sweep.axes),
            "sweep.searched": json.dumps([*sweep.space]),
            "sweep.seeds": json.dumps(sweep.seeds),
            "sweep.goals": json.dumps([dataclasses.asdict(goal) for goal in sweep.goals]),
            "sweep.base": json.dumps(shared_fields(plan.base, sweep.axes), sort_keys=True),
            "sweep.grid": json.dumps(_resolved(sweep, plan.base), default=list),
            "sweep.references": json.dumps([cell.key for cell in plan.fixed if cell.role == "reference"]),
        }
        for key, value in tags.items():
            self._client.set_experiment_tag(self._experiment_id, key, value)
        for cell in plan.fixed:  # a reference of yesterday may be a cell of today's grid
            entry = plan.entries.get(cell.key)
            if entry is not None and entry.role != cell.role:
                self._client.set_tag(entry.run_id, "role", cell.role)

    def knows(self, key: str) -> bool:
        """Whether the cell has a run, whatever became of it."""
        return bool(self._find(key))

    def start(self, cell: Cell, *, devices: float, resources: str = "") -> None:
        """Open the cell's run: the one it has, continued, or a new one with its complete config.

        Args:
            devices: what the cell occupies: workers x GPUs of each (on CPUs, x 1).
            resources: the same in words, with the kind of device; prices of later cells rest on it.
        """
        run_id = self._find(cell.key)
        before = 0.0
        if run_id:
            before = float(self._client.get_run(run_id).data.tags.get("device_seconds", 0))
            self._client.update_run(run_id, status="RUNNING")
        else:
            run_id = self._create(cell).info.run_id
        self._open[cell.key] = _Open(run_id, before, devices)
        tags = {
            "status": "running",
            "reason": "",
            "workers": str(self._workers),
            "resources": resources,
            **_code_tags(self._source),
        }
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log(self, key: str, metrics: Mapping[str, float], *, rungs: Mapping[int, float] = {}) -> None:
        """One epoch's metrics of a cell; those without a prefix, as epoch itself, are not logged.

        Args:
            rungs: epoch -> objective, of the places so far at which early stopping judged the cell.
        """
        run = self._open[key]
        now, epoch = int(time.time() * 1000), int(metrics["epoch"])
        rows = [Metric(name, value, now, epoch) for name, value in metrics.items() if "/" in name]
        tags = [RunTag("epoch", str(epoch)), RunTag("device_seconds", f"{run.device_seconds:.1f}")]
        tags += [RunTag("rungs", json.dumps(rungs))] if rungs else []
        self._client.log_batch(run.run_id, metrics=rows, tags=tags)

    def end(self, key: str, status: str, reason: str, details: str = "") -> None:
        """Close a cell's run: finished, diverged, collapsed, pruned, failed, or interrupted (which is run again)."""
        run = self._open.pop(key)
        tags = {"status": status, "reason": reason[:500], "device_seconds": f"{run.device_seconds:.1f}"}
        self._client.log_batch(run.run_id, tags=[RunTag(name, text) for name, text in tags.items()])
        if details:
            self._client.log_text(run.run_id, details, "traceback.txt")
        self._client.set_terminated(run.run_id, _MLFLOW_STATUS.get(status, "KILLED"))

    def amend(self, entry: Entry, metrics: Mapping[str, float]) -> None:
        """Add metrics of a later evaluation to a cell that is over."""
        now, epoch = int(time.time() * 1000), int(metrics["epoch"])
        rows = [Metric(name, value, now, epoch) for name, value in metrics.items() if "/" in name]
        self._client.log_batch(entry.run_id, metrics=rows)

    def describe(self, text: str) -> None:
        """Set the experiment's description, which the UI renders as Markdown above the runs."""
        self._client.set_experiment_tag(self._experiment_id, "mlflow.note.content", text)

    def _find(self, key: str) -> str:
        """The id of the cell's run, "" where it has none."""
        found = self._client.search_runs(
            [self._experiment_id], f"tags.cell_key = '{key}'", ViewType.ACTIVE_ONLY, max_results=1
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


def _resolved(sweep: Sweep, base: TrainConfig) -> list[dict[str, Sequence[Scalar]]]:
    """The sweep's grids, one for each method in it, each with a value for every axis of any: the base's own where it
    has none, with another method than the base's that method's own default, "" where a method has no such field."""
    grids: list[dict[str, Sequence[Scalar]]] = []
    for grid in sweep.grids:
        for method in grid.get("method", [base.method.name]):
            flat = flatten(unflatten({"method": method}, base=base))
            named = {"method": [method]} if "method" in sweep.grid_axes else {}
            grids.append({key: grid.get(key, [flat.get(key, "")]) for key in sweep.grid_axes} | named)
    return grids


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
