"""Checks of the folders that a launch writes to, made before anything starts."""

import tempfile
from pathlib import Path

from jepa_train.base.errors import ConfigError
from jepa_train.storage.base import StoragePath
from jepa_train.storage.resolve import mark, unseen


def check_results_folder(folder: Path) -> None:
    """Refuse a results folder that cannot be made or written.

    Raises:
        ConfigError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        raise ConfigError(
            f"results must go where they can be written, got {folder} ({error.strerror}); make room or set JEPA_RESULTS"
        ) from None


def storage_problem(place: StoragePath) -> str:
    """Why checkpoints cannot be kept in a storage, "" if they can."""
    try:
        with mark(place) as name:
            return unseen(str(place), name)
    except OSError as error:
        return str(error)


def check_shared_storage(place: StoragePath) -> None:
    """Refuse a storage of checkpoints that cannot be reached or written.

    Raises:
        ConfigError: it cannot.
    """
    if reason := storage_problem(place):
        raise ConfigError(f"JEPA_STORAGE must be where checkpoints can be kept: {reason}; see doctor")
