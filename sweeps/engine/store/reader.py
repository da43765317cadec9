"""Reading the MLflow store: the cells of a sweep. Reading creates nothing."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow.entities import Experiment

from analysis.select.objectives import Goal
from analysis.store.cell_list import recorded_cells
from analysis.store.records import Record, one_per_cell, read_records, recorded_version, with_later
from analysis.store.uri import sqlite_file
from analysis.store.uri import store_uri as store_uri  # one name for all readers and writers of the store
from jepa_train.base.errors import ConfigError
from jepa_train.base.security import hidden
from jepa_train.config import TrainConfig
from jepa_train.config.flat import later_fields, parse, unflatten
from sweeps.engine.spec.cells import shared_fields
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.code_version import code_of
from sweeps.engine.store.mlflow_client import open_client

# Values of the tag `status` of a cell with a result. A driver that was killed leaves "running".
RESULTS = ("finished", "diverged", "collapsed")
_TEXTS = ("status", "role", "reason", "resources", "group", "stale")
_NUMBERS = ("device_seconds", "lost_device_seconds")
_TAGS: dict[str, type] = dict.fromkeys(_TEXTS, str) | dict.fromkeys(_NUMBERS, float) | {"epoch": int}  # of Entry
_CELL_KEY = re.compile(r"[0-9a-f]{16}")  # names a folder of checkpoints, and a store may hold anything


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The record of one cell in the store."""

    run_id: str
    key: str
    label: str
    params: dict[str, str]  # with the default of each field that was added after its run
    metrics: dict[str, float]
    status: str = "running"
    role: str = "cell"
    reason: str = ""
    epoch: int = 0  # the last one that was logged
    device_seconds: float = 0.0  # of all attempts: time x workers x GPUs of each (on CPUs, x 1)
    lost_device_seconds: float = 0.0  # of these: between a checkpoint and the loss of a worker
    resources: str = ""  # of its trial, in the words of resources.Request
    group: str = ""  # equal for the cells to average
    stale: str = ""  # why the sweep no longer uses the run, "" if it does
    rungs: dict[int, float] = field(default_factory=dict)  # epoch -> objective where early stopping judged it
    version: str = ""  # of the code that made it
    outdated: bool = False  # the present code has another version, than it or than that of a later evaluation
    restart: bool = False  # its run is history, and the cell runs again from the start

    def scores(self, goals: Sequence[Goal]) -> tuple[float, ...]:
        """The scores of a finished cell, one per goal; NaN where there is none."""
        metrics = self.metrics if self.status == "finished" else {}
        return tuple(goal.score(metrics, self.params) for goal in goals)

    @property
    def done(self) -> bool:
        """True if the cell has a result; divergence and collapse are results."""
        return self.status in RESULTS

    def restarted(self) -> "Entry":
        """The entry of a cell that runs again from the start: without what its run holds."""
        return replace(self, status="interrupted", reason="", metrics={}, epoch=0, rungs={}, restart=True)


@dataclass(frozen=True, kw_only=True)
class LastLaunch:
    """Last launch of a sweep, as the store has it, besides the cells of the present base.

    Args:
        requested: keys of the cells that it asked for; None in a store that lacks the list or the number of all cells.
        total: number of its cells, including those that its searches had still to choose.
        searched: it had searches.
        others: runs of cells of another base, and runs of a cell that another run replaces or replaced.
    """

    requested: tuple[str, ...] | None = None
    total: int = 0
    searched: bool = False
    others: tuple[Entry, ...] = ()


def shown_uri() -> str:
    """URI of the store for messages, without a password."""
    return hidden(store_uri())


def find_experiment(name: str) -> Experiment | None:
    """A sweep's experiment, or None. Unlike MLflow, it creates no sqlite file.

    Raises:
        NothingToShow: see open_client.
    """
    uri = store_uri()
    file = sqlite_file(uri)
    return None if file is not None and not os.path.exists(file) else open_client(uri).get_experiment_by_name(name)


def read_entries(experiment: Experiment | None) -> list[Entry]:
    """Every cell of an experiment, once; runs without a cell key are not the engine's. [] without an experiment."""
    return read_runs(experiment)[0]


def read_runs(experiment: Experiment | None) -> tuple[list[Entry], list[Entry]]:
    """Every cell of an experiment, once, and the further runs of these cells, also those that began again."""
    if experiment is None:
        return [], []
    records = read_records(open_client(store_uri()), experiment.experiment_id, store_uri())
    keyed = [record for record in records if _CELL_KEY.fullmatch(_key(record))]
    cells = one_per_cell(record for record in keyed if "cell_key" in record.tags)
    chosen = {record.run_id for record in cells}
    has_versions = any("code_version" in record.tags for record in cells)
    entries = [_entry(record, has_versions=has_versions) for record in cells]
    return entries, [_entry(record, has_versions=True) for record in keyed if record.run_id not in chosen]


def current_entries(experiment: Experiment | None) -> list[Entry]:
    """The cells and references that the sweep's last launch asked for; all of them in a store without its list."""
    return requested_entries(read_entries(experiment), recorded_cells(experiment.tags) if experiment else None)


def requested_entries(cells: Sequence[Entry], requested: Sequence[str] | None) -> list[Entry]:
    """Those of a sweep's cells that are in the list of its last launch; all of them without a list."""
    entries = {entry.key: entry for entry in cells}
    return [entries[key] for key in requested if key in entries] if requested is not None else [*cells]


def read_ledger(sweep: Sweep, base: TrainConfig, source: Path) -> tuple[dict[str, Entry], LastLaunch]:
    """The cells of a sweep in the store, by key, without those of another base; and its last launch. Creates nothing.

    The sweep's file may have changed since its last launch: the plan selects by key.

    Args:
        base: the sweep's base, with its data identified.
        source: the sweep's file.

    Raises:
        ConfigError: the sweep's name belongs to another file.
    """
    experiment = find_experiment(sweep.name)
    if experiment is None:
        return {}, LastLaunch()
    other = Path(experiment.tags.get("sweep.file", ""))
    if _origin(other) != _origin(source) and other.is_file():  # one that was moved keeps its sweep; two would mix cells
        raise ConfigError(
            f"name {sweep.name!r} must belong to one sweep file, but this store has it from {other}; "
            f"rename {source.name} and its sweep"
        )
    return ledger_of(sweep, base, experiment, read_runs(experiment))


def ledger_of(
    sweep: Sweep, base: TrainConfig, experiment: Experiment, runs: tuple[list[Entry], list[Entry]]
) -> tuple[dict[str, Entry], LastLaunch]:
    """See read_ledger.

    Args:
        runs: of the experiment, as read_runs gives them.
    """
    cells, others = runs
    shared = shared_fields(base, sweep.axes)
    entries = {
        entry.key: entry for entry in cells if entry.role == "reference" or shared.items() <= entry.params.items()
    }
    others = [*others, *(entry for entry in cells if entry.key not in entries)]
    if "sweep.total" not in experiment.tags:
        return entries, LastLaunch(others=tuple(others))
    return entries, LastLaunch(
        requested=recorded_cells(experiment.tags),
        total=int(experiment.tags["sweep.total"]),
        searched=experiment.tags.get("sweep.searched") != "[]",
        others=tuple(others),
    )


def _origin(file: Path) -> Path:
    """Path that identifies a sweep's file: sweeps/NAME.py for the copies that `ray submit` makes in the home folder and
    `ray job submit` in a copy of the project."""
    project = file.parent.parent
    copied = file.parent == Path.home() or (file.parent.name == "sweeps" and (project / "jepa_train").is_dir())
    return Path("sweeps") / file.name if copied else file


def best_config(sweep: str) -> TrainConfig:
    """The config of a sweep's best finished cell, by its objective on val; references do not compete.

    Raises:
        ConfigError: the sweep has no finished cell in this store.
    """
    experiment = find_experiment(sweep)
    entries = current_entries(experiment)
    finished = {entry.key: entry for entry in entries if entry.status == "finished" and entry.role == "cell"}
    if experiment is None or not finished:
        raise ConfigError(
            f"base is the best cell of sweep {sweep!r}, which has no finished cell in this store; "
            f"run python sweeps/{sweep}.py first"
        )
    goal = Goal(**json.loads(experiment.tags["sweep.goals"])[0])
    scores = {key: entry.scores([goal])[0] for key, entry in finished.items()}
    best = finished[goal.best_key(scores) or min(scores)]
    return unflatten(parse((f"{key}={text}" for key, text in best.params.items()), base=TrainConfig()))


def _key(record: Record) -> str:
    """Key of a run's cell; "" for a run that is not the engine's."""
    return record.tags.get("cell_key") or record.tags.get("former_cell_key", "")


def _entry(record: Record, *, has_versions: bool) -> Entry:
    """The entry of a run.

    Args:
        has_versions: a cell of the sweep has a code version; without one none is outdated, as in the note of a table.
    """
    tags = record.tags
    params = with_later(record.params, later_fields())
    version, present = recorded_version(tags), code_of(params).version
    typed: dict[str, Any] = {name: kind(tags[name]) for name, kind in _TAGS.items() if name in tags}
    return Entry(
        run_id=record.run_id,
        key=_key(record),
        label=record.name,
        params=params,
        metrics=record.metrics,
        rungs={int(epoch): value for epoch, value in json.loads(tags.get("rungs", "{}")).items()},
        version=version,
        outdated=has_versions and {version, tags.get("evaluated_version", present)} != {present},
        **typed,
    )
