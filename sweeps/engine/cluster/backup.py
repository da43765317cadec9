"""backup: a copy of a head's MLflow store in the checkpoints' storage, because a replaced head loses its disk.

cluster/mlflow.sh runs `python -m sweeps backup restore` before it starts the server, and then `backup watch` in the
background; a launch copies at its end. Imports no torch.
"""

import contextlib
import logging
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from analysis.store.uri import NothingToShow, file_problem
from jepa_train.base.errors import ConfigError
from jepa_train.storage.paths import results_dir
from jepa_train.storage.storage import StorageError, StoragePath, storage_dir, storage_path

logger = logging.getLogger(__name__)

EVERY_S = 600.0
WATCH = ".backup.lock"  # in the results of a head: the lock of its watch


def backup(words: Sequence[str]) -> int:
    """Restore the store if it is missing, or copy it every ten minutes if it has changed.

    Raises:
        ConfigError: another word; a storage that cannot be read, while there is no store.
        NothingToShow: a store that cannot be used.
    """
    if list(words) == ["restore"]:
        try:
            sys.stdout.write(restore_store())
        except StorageError as error:
            raise ConfigError(f"JEPA_STORAGE must say whether it holds a copy of the store, got {error}") from error
        return 0
    if list(words) != ["watch"]:
        raise ConfigError(f"backup: got {' '.join(words)!r}; write python -m sweeps backup restore|watch")
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s")
    copied = 0
    while True:
        changed = _store().stat().st_mtime_ns if _store().exists() else 0
        if changed != copied:
            logger.info("%s", (problem := keep()) or f"copied to {_copy()}")
            copied = copied if problem else changed
        time.sleep(EVERY_S)


def watched() -> bool:
    """True if a watch copies the store in the results folder, as on a cluster's head."""
    return (results_dir() / WATCH).exists()


def keep() -> str:
    """Copy a snapshot of the store; "" or one line that says why the copy before it stays.

    It replaces an earlier copy only if it has all of its runs: never the copy of another store.
    """
    if problem := file_problem(_store()):
        return problem
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=results_dir()) as folder:
            snapshot, before = Path(folder) / "snapshot", Path(folder) / "before"
            source = contextlib.closing(sqlite3.connect(f"{_store().absolute().as_uri()}?mode=ro", uri=True))
            with source as store, contextlib.closing(sqlite3.connect(snapshot)) as target:
                store.backup(target)
            if _copy().files():
                _copy().copy_to(before)
                if lacking := len(runs_in(before) - runs_in(snapshot)):
                    return f"{_copy()} is of another store: {lacking} of its runs are not in this one; move it away"
            _copy().write_bytes(snapshot.read_bytes())
    except (OSError, sqlite3.Error) as error:
        return f"the store cannot be copied to {_copy()} now ({error})"
    return ""


def restore_store() -> str:
    """Restore the store from its copy if it is missing; a line that says so, or "".

    Raises:
        StorageError: the storage cannot be read, or the results folder not written.
        NothingToShow: there is a store, which cannot be used.
    """
    if os.path.exists(_store()) and (problem := file_problem(_store())):
        raise NothingToShow(problem)
    if os.path.exists(_store()) or not (found := _copy().files()):
        return ""
    storage_path(_store()).write_bytes(_copy().read_bytes())
    return f"{_store()} was missing: restored from {_copy()}, which is of {found[0].mtime:%Y-%m-%d %H:%M} UTC\n"


def runs_in(file: Path) -> set[str]:
    """Ids of the runs in a copy of a store, deleted ones included."""
    with contextlib.closing(sqlite3.connect(file)) as store:
        return {run for (run,) in store.execute("select run_uuid from runs")}


def _store() -> Path:
    return results_dir() / "mlflow.db"


def _copy() -> StoragePath:
    return storage_dir() / "store" / "mlflow.db"
