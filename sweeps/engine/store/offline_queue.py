"""Offline queue: a file that keeps the operations which the store has not taken while it cannot be reached."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.store.uri import sqlite_file, store_uri
from jepa_train.storage.paths import results_dir
from jepa_train.storage.storage import storage_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A change of a cell's run, or of the sweep's experiment (no key). Parts that are left out stay as they are."""

    at: int  # ms: when it happened, which may be long before it is written
    key: str = ""
    new: Mapping[str, Any] = field(default_factory=dict)  # label, tags, params, dataset of a run to be created
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str | None] = field(default_factory=dict)  # None removes one
    run_tags: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)  # run id -> tags of any run
    status: str = ""  # MLflow's own: RUNNING, FINISHED, FAILED, KILLED
    files: Mapping[str, str] = field(default_factory=dict)  # artifacts: name -> text
    description: str = ""  # of the experiment

    @property
    def ends(self) -> bool:
        """True if the run is over with it."""
        return self.status not in ("", "RUNNING")


class OfflineQueue:
    """One launch's file of operations as JSON lines, in order."""

    def __init__(self, sweep: str) -> None:
        self.file = _folder() / f"{sweep}-{_store_mark()}-{time.time_ns()}.jsonl"

    def save(self, operations: Iterable[Operation]) -> bool:
        """Replace the file, down to the disk. Returns False, and leaves the file, if the disk refuses."""
        lines = [json.dumps({name: part for name, part in vars(one).items() if part}) for one in operations]
        try:
            storage_path(self.file).write_bytes("\n".join([*lines, ""]).encode())
        except OSError:
            return False
        return True


def offline_files(sweep: str) -> list[Path]:
    """The files that earlier launches of the sweep left for the present store, oldest first."""
    marks = {_store_mark(), _mark_of(os.environ.get("MLFLOW_TRACKING_URI", ""))}  # the latter of older versions
    files = [file for mark in marks for file in _folder().glob(f"{sweep}-{mark}-*.jsonl")]
    return sorted(files, key=lambda file: int(file.stem.rpartition("-")[2]))


def read_operations(file: Path) -> list[Operation]:
    """The operations of an offline queue, except lines that cannot be read (half ones, or of another version)."""
    lines, operations = file.read_bytes().splitlines(), []
    for line in lines:
        with suppress(ValueError, TypeError):
            operations.append(Operation(**json.loads(line)))
    if len(operations) < len(lines):
        logger.warning("%s: %d lines cannot be read and are left out", file, len(lines) - len(operations))
    return operations


def _folder() -> Path:
    return results_dir() / "spool"


def _store_mark() -> str:
    """Mark of the store in the file's name; a results folder that has moved took its own store along."""
    inside = sqlite_file(store_uri()) == results_dir() / "mlflow.db"
    return _mark_of("" if inside else os.environ.get("MLFLOW_TRACKING_URI", ""))


def _mark_of(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:8]
