"""backup: a copy of a head's MLflow store in the checkpoints' storage, because a replaced head loses its disk.

cluster/mlflow.sh runs `python -m sweeps backup restore` before it starts the server, and then `backup watch` in the
background; a launch copies at its end. Imports no torch.
"""

import contextlib
import logging
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from jepa_train.base.errors import ConfigError
from jepa_train.storage.base import StoragePath
from jepa_train.storage.local import LocalPath
from jepa_train.storage.paths import results_dir
from jepa_train.storage.resolve import storage_dir

logger = logging.getLogger(__name__)

EVERY_S = 600.0
WATCH = ".backup.lock"  # in the results of a head: the lock of its watch


def backup(words: Sequence[str]) -> int:
    """Restore the store if it is missing, or copy it every ten minutes if it has changed.

    Raises:
        ConfigError: another word; a storage that cannot be read, while there is no store.
    """
    if list(words) not in (["restore"], ["watch"]):
        raise ConfigError(f"backup: got {' '.join(words)!r}; write python -m sweeps backup restore|watch")
    if list(words) == ["restore"]:
        try:
            sys.stdout.write(restore_store())
        except OSError as error:
            raise ConfigError(f"JEPA_STORAGE must say whether it holds a copy of the store, got {error}") from error
        return 0
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s")
    copied = 0
    while True:
        changed = _store().stat().st_mtime_ns if _store().exists() else 0
        if changed != copied:
            problem = keep()
            logger.info("%s", problem or f"copied to {_copy()}")
            copied = copied if problem else changed
        time.sleep(EVERY_S)


def watched() -> bool:
    """True if the store in the results folder is copied by a watch, as on a cluster's head."""
    return (results_dir() / WATCH).exists()


def keep() -> str:
    """Copy a snapshot of the store; "" or one line that says why the copy before it stays.

    It replaces an earlier copy only if it has all of its runs: never the copy of another store.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=results_dir()) as folder:
            snapshot = Path(folder) / "mlflow.db"  # on a disk that can lock: the storage's may not
            with _opened(_store(), "mode=ro") as store, contextlib.closing(sqlite3.connect(snapshot)) as target:
                store.backup(target)
            if _is_copied():
                with _copy().local() as before:
                    lacking = len(runs_in(before) - runs_in(snapshot))
                if lacking:
                    return f"{_copy()} is of another store: {lacking} of its runs are not in this one; move it away"
            with _copy().written() as file:
                shutil.copyfile(snapshot, file)
    except (OSError, sqlite3.Error) as error:
        return f"the store cannot be copied to {_copy()} now ({error})"
    return ""


def restore_store() -> str:
    """Restore the store from its copy if it is missing; a line that says so, or "".

    Raises:
        OSError: the storage cannot be read, or the results folder not written.
    """
    if _store().exists() or not _is_copied():
        return ""
    with _copy().local() as copy, LocalPath(_store()).written() as file:
        shutil.copyfile(copy, file)
    return f"{_store()} was missing: restored from {_copy()}\n"


def runs_in(file: Path) -> set[str]:
    """Ids of the runs in a store that nobody writes, deleted ones included."""
    with _opened(file, "immutable=1") as store:
        return {run for (run,) in store.execute("select run_uuid from runs")}


def _store() -> Path:
    return results_dir() / "mlflow.db"


def _copy() -> StoragePath:
    return storage_dir() / "store" / "mlflow.db"


def _is_copied() -> bool:
    return "mlflow.db" in (storage_dir() / "store").names()


def _opened(file: Path, options: str) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?{options}", uri=True))
