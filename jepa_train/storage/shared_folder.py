"""Test that machines share a folder: one leaves a mark, the others look for it."""

import contextlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from jepa_train.base.errors import ConfigError
from jepa_train.storage.base import StorageError, StoragePath
from jepa_train.storage.resolve import storage_path


@contextmanager
def mark(place: StoragePath) -> Iterator[str]:
    """Write a small file into the folder while the block lasts, and tell its name: who shares the folder sees it.

    Raises:
        OSError: the folder cannot be written to.
    """
    name = f".seen-{uuid.uuid4().hex}"
    with (place / name).written() as file:
        file.touch()
    try:
        yield name
    finally:
        with contextlib.suppress(OSError):
            (place / name).remove()


def unseen(where: str, name: str) -> str:
    """Why this machine does not see the mark of that name in the folder of this path or URL; "" where it does."""
    try:
        seen = (storage_path(where) / name).is_there()
    except (StorageError, ConfigError) as error:
        return str(error)
    return "" if seen else f"{where} is another folder here"
