"""The offline queue: a file that keeps what the store has yet to be told, while the store cannot be reached."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepa_train.storage.paths import results_dir


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A change of a cell's run, or of the sweep's experiment (no key). What is left out stays as it is."""

    at: int  # ms: when it happened, which may be long before the store hears of it
    key: str = ""
    new: Mapping[str, Any] = field(default_factory=dict)  # label, tags, params, dataset, should there be no run yet
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str = ""  # MLflow's own: RUNNING, FINISHED, FAILED, KILLED
    files: Mapping[str, str] = field(default_factory=dict)  # artifacts: name -> text
    description: str = ""  # of the experiment

    @property
    def ends(self) -> bool:
        """Whether the run is over with it."""
        return self.status not in ("", "RUNNING")


class OfflineQueue:
    """Operations as JSON lines, in order; the file is there from the first that is appended until it is removed."""

    def __init__(self, sweep: str) -> None:
        self.file = _folder() / f"{sweep}-{_store_mark()}-{time.time_ns()}.jsonl"
        self._end = 0  # of the last line that was written whole

    def append(self, operations: Iterable[Operation]) -> bool:
        """Append, down to the disk. False where the disk refuses; the same operations may be given again."""
        lines = "".join(json.dumps({k: v for k, v in vars(one).items() if v}) + "\n" for one in operations)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as stream:
                stream.truncate(self._end)  # a full disk may have taken half a line
                stream.write(lines.encode())
                stream.flush()
                os.fsync(stream.fileno())
                self._end = stream.tell()
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Remove the file; the next operations begin another."""
        self.file.unlink(missing_ok=True)
        self._end = 0


def offline_files(sweep: str) -> list[Path]:
    """What earlier launches of the sweep could not tell the present store, oldest first."""
    files = _folder().glob(f"{sweep}-{_store_mark()}-*.jsonl")
    return sorted(files, key=lambda file: int(file.stem.rpartition("-")[2]))


def read_operations(file: Path) -> list[Operation]:
    """The operations of an offline queue, but for a line that was cut off when its writer was killed."""
    operations = []
    for line in file.read_bytes().splitlines():
        try:
            operations.append(Operation(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return operations


def _folder() -> Path:
    return results_dir() / "spool"


def _store_mark() -> str:
    """Names the store in the file's name; a results folder that has moved took its own store along."""
    return hashlib.sha256(os.environ.get("MLFLOW_TRACKING_URI", "").encode()).hexdigest()[:8]
