"""backup: a copy of a head's MLflow store beside the checkpoints: a head that is replaced takes its disk along.

cluster/mlflow.sh runs `python -m sweeps backup restore` before it starts the server, and leaves `backup watch` behind;
a launch copies at its end. Imports no torch.
"""

import contextlib
import logging
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from jepa_train.base.errors import ConfigError
from jepa_train.storage.paths import results_dir
from jepa_train.storage.storage import StoragePath, storage_dir, storage_path

logger = logging.getLogger(__name__)

EVERY_S = 600.0
WATCH = ".backup.lock"  # in the results of a head that has a watch, which holds it


def backup(words: Sequence[str]) -> int:
    """Restore the store where it is missing, or copy it again and again.

    Raises:
        ConfigError: another word; a copy that cannot be read, where there is no store.
    """
    if list(words) == ["restore"]:
        try:
            sys.stdout.write(restore_store())
        except OSError as error:
            raise ConfigError(f"JEPA_STORAGE must say whether it holds a copy of the store, got {error}") from error
        return 0
    if list(words) != ["watch"]:
        raise ConfigError(f"backup: got {' '.join(words)!r}; write python -m sweeps backup restore|watch")
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
    """Whether the results hold a store whose copy is kept: those of a cluster's head do."""
    return (results_dir() / WATCH).exists()


def keep() -> str:
    """Copy the store as it is at one moment; "" or one line that says why the copy before it stays.

    It takes the place of an earlier copy of this store alone, one whose runs it has all: not of another head's, nor of
    one that was lost.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=results_dir()) as folder:
            now = Path(folder) / "mlflow.db"  # on a disk that can lock: the storage's may not
            with _opened(_store(), "mode=ro") as store, contextlib.closing(sqlite3.connect(now)) as target:
                store.backup(target)
            if _copied():
                before = Path(folder) / "before.db"
                _copy().copy_to(before)
                lacking = len(_runs(before) - _runs(now))
                if lacking:
                    return f"{_copy()} is of another store: {lacking} of its runs are not in this one; move it away"
            _copy().write_bytes(now.read_bytes())
    except (OSError, sqlite3.Error) as error:
        return f"the store cannot be copied to {_copy()} now ({error})"
    return ""


def restore_store() -> str:
    """Take the copy, if there is one and no store; a line that says so, or "".

    Raises:
        OSError: the storage does not say, or the results cannot be written to.
    """
    if _store().exists() or not _copied():
        return ""
    (found,) = _copy().files()
    storage_path(_store()).write_bytes(_copy().read_bytes())
    return f"{_store()} was missing: restored from {_copy()}, which is of {found.mtime:%Y-%m-%d %H:%M} UTC\n"


def _store() -> Path:
    return results_dir() / "mlflow.db"


def _copy() -> StoragePath:
    return storage_dir() / "store" / "mlflow.db"


def _copied() -> bool:
    return "mlflow.db" in (storage_dir() / "store").names()


def _runs(file: Path) -> set[str]:
    """The runs of a store that nobody writes, deleted ones too."""
    with _opened(file, "immutable=1") as store:
        return {run for (run,) in store.execute("select run_uuid from runs")}


def _opened(file: Path, how: str) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True))
