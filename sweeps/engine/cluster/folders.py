"""Checks of the folders that a launch writes to, made before anything starts, and of the storage on every node."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jepa_train.base.errors import ConfigError
from jepa_train.storage.storage import StorageError, StoragePath, storage_path


def check_results_folder(folder: Path) -> None:
    """Refuse a results folder that cannot be made or written.

    Raises:
        ConfigError: it cannot.
    """
    if reason := storage_problem(storage_path(folder)):
        full = any(os.strerror(code) in reason for code in (errno.ENOSPC, errno.EDQUOT))
        remedy = "make room or set JEPA_RESULTS" if full else "set JEPA_RESULTS to a folder of yours"
        raise ConfigError(f"results must go where they can be written, got {folder}: {reason}; {remedy}")


def check_shared_storage(place: StoragePath) -> None:
    """Refuse a storage of checkpoints that cannot be reached or written.

    Raises:
        ConfigError: it cannot.
    """
    if reason := storage_problem(place):
        raise ConfigError(f"JEPA_STORAGE must be where checkpoints can be kept: {reason}; see doctor")


def storage_problem(place: StoragePath) -> str:
    """The reason why files cannot be kept in a storage; "" if they can."""
    try:
        with probe_file(place) as name:
            return probe_error(str(place), name)
    except OSError as error:
        return str(error)


@contextmanager
def probe_file(folder: StoragePath) -> Iterator[str]:
    """The name of a small file in the folder, for probe_error on other machines; removed at the end of the block.

    Raises:
        StorageError: the folder cannot be written to.
    """
    probe = folder / f".probe-{uuid.uuid4().hex}"
    probe.write_bytes(bytes(1 << 16))  # a full disk takes an empty file
    try:
        yield probe.name
    finally:
        with suppress(OSError):
            probe.remove()


def probe_error(where: str, name: str) -> str:
    """The reason why this machine does not see the probe file in the folder of this path or URL; "" if it does.

    Asks for the file by its name: a listing of a folder on NFS may be seconds old.
    """
    try:
        return "" if (storage_path(where) / name).files() else f"{where} is another folder here"
    except (StorageError, ConfigError) as error:
        return str(error)
