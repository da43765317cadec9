"""Storage of a path, a URL or the environment, and the test that machines share it. Knows all kinds of storage."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from jepa_train.base.errors import ConfigError
from jepa_train.storage.base import StorageError, StoragePath, expanded, has_url_scheme
from jepa_train.storage.local import LocalPath
from jepa_train.storage.paths import results_dir


def storage_path(where: str | Path | StoragePath, *, named: str = "a place") -> StoragePath:
    """The storage of a path or URL: s3://bucket/prefix, gs://bucket/prefix, file:///folder. Asks no server.

    Args:
        named: what a message calls it, a variable or an option.

    Raises:
        ConfigError: no such kind of URL, no bucket, or credentials in it, which would be written to runs and logs.
    """
    if not isinstance(where, str | Path):
        return where
    text = str(where)
    if not has_url_scheme(text):
        return LocalPath(expanded(text, named=named))
    from jepa_train.storage.bucket import BucketPath, checked  # a disk needs no client

    scheme, netloc, path, query = checked(text, named)
    if scheme == "file":
        return LocalPath(Path(unquote(path)))
    return BucketPath(scheme=scheme, bucket=netloc, key=unquote(path).strip("/"), query=query)


def storage_dir() -> StoragePath:
    """Where checkpoints and exports lie: the path or URL of JEPA_STORAGE, or the results folder.

    Raises:
        ConfigError: see storage_path.
    """
    named = os.environ.get("JEPA_STORAGE")
    return storage_path(named or results_dir(), named="JEPA_STORAGE")


def checkpoints_dir(sweep: str) -> StoragePath:
    """Where the checkpoints of a sweep lie, one folder per cell key: each sweep trains its own."""
    return storage_dir() / "checkpoints" / sweep


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
