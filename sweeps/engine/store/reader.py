"""Reading the MLflow store: the cells of a sweep. Reading creates nothing."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow.entities import Experiment

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
from sweeps.engine.store.mlflow_client import open_client, when_free

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

    @property
    def done(self) -> bool:
        """True if the cell has a result; divergence and collapse are results."""
        return self.status in RESULTS

    def restarted(self) -> "Entry":
        """The entry of a cell that runs again from the start: without what its run holds."""
        return replace(self, status="interrupted", reason="", metrics={}, epoch=0, rungs={}, restart=True)


@dataclass(frozen=True, kw_only=True)
class StoredSweep:
    """A sweep as the store has it; empty for one that has not been launched.

    Args:
        tags: of its experiment.
        cells: every cell once, of any base.
        further: runs of these cells that another one replaces or has replaced.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    cells: tuple[Entry, ...] = ()
    further: tuple[Entry, ...] = ()

    @property
    def runs(self) -> tuple[Entry, ...]:
        """Every run of a cell."""
        return (*self.cells, *self.further)

    @property
    def requested(self) -> tuple[str, ...] | None:
        """Keys of the cells that the last launch asked for; None in a store without this list."""
        return recorded_cells(self.tags)

    @property
    def current(self) -> list[Entry]:
        """The cells and references that the last launch asked for; all of them in a store without its list."""
        entries, requested = {entry.key: entry for entry in self.cells}, self.requested
        return [entries[key] for key in requested if key in entries] if requested is not None else [*self.cells]

    def entries(self, sweep: Sweep, base: TrainConfig) -> dict[str, Entry]:
        """The cells by key, without those of another base.

        The sweep's file may have changed since its last launch: the plan selects by key.

        Args:
            base: the sweep's base, with its data identified.
        """
        shared = shared_fields(base, sweep.axes)
        of_base = (entry.role == "reference" or shared.items() <= entry.params.items() for entry in self.cells)
        return {entry.key: entry for entry, wanted in zip(self.cells, of_base, strict=True) if wanted}


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
    if file is not None and not os.path.exists(file):
        return None
    client = open_client(uri)
    return when_free(lambda: client.get_experiment_by_name(name))


def read_sweep(name: str, file: Path | None = None) -> StoredSweep:
    """A sweep in the store. Runs without a cell key are not the engine's. Creates nothing.

    Args:
        file: the sweep's.

    Raises:
        ConfigError: the sweep's name belongs to another file.
    """
    experiment = find_experiment(name)
    if experiment is None:
        return StoredSweep()
    other = Path(experiment.tags.get("sweep.file", ""))
    # one that was moved keeps its sweep; two would mix cells
    if file is not None and _origin(other) != _origin(file) and other.is_file():
        raise ConfigError(
            f"name {name!r} must belong to one sweep file, but this store has it from {other}; "
            f"rename {file.name} and its sweep"
        )
    client, uri = open_client(store_uri()), store_uri()
    records = when_free(lambda: read_records(client, experiment.experiment_id, uri))
    keyed = [record for record in records if _CELL_KEY.fullmatch(_key(record))]
    chosen = one_per_cell(record for record in keyed if "cell_key" in record.tags)
    has_versions = any("code_version" in record.tags for record in chosen)
    entries = {record.run_id: _entry(record, has_versions=has_versions) for record in keyed}
    cells = tuple(entries.pop(record.run_id) for record in chosen)
    return StoredSweep(tags=experiment.tags, cells=cells, further=tuple(entries.values()))


def _origin(file: Path) -> Path:
    """Path that identifies a sweep's file: sweeps/NAME.py for the copies that `ray submit` makes in the home folder and
    `ray job submit` in a copy of the project."""
    project = file.parent.parent
    copied = file.parent == Path.home() or (file.parent.name == "sweeps" and (project / "jepa_train").is_dir())
    return Path("sweeps") / file.name if copied else file


def best_config(sweep: str) -> TrainConfig:
    """The config of a sweep's winner, as its table and `python -m sweeps best` choose it, with its first seed.

    Raises:
        ConfigError: the sweep has no winner in this store.
    """
    from analysis.select.compared import winner  # pandas takes half a second to import
    from analysis.store.runs import NothingToShow, all_runs

    cells = {entry.key: entry for entry in read_sweep(sweep).cells}
    try:
        found = winner(all_runs(sweep)).runs["cell_key"].tolist()
    except NothingToShow:  # no run, or none with its parameters yet
        found = []
    if not found:
        raise ConfigError(
            f"base is the best cell of sweep {sweep!r}, which has no winner in this store; run "
            f"python sweeps/{sweep}.py first, and see python -m analysis {sweep}"
        )
    return unflatten(parse((f"{key}={text}" for key, text in cells[found[0]].params.items()), base=TrainConfig()))


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
