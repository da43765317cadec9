"""Interface of storage that outlives a machine, its errors, and the tests of what a user typed for a path."""

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol, Self

from jepa_train.base.errors import ConfigError

_URL_LIKE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")


class StorageError(OSError):
    """The storage is away or refuses: nothing is known of what lies there. The message is one line."""


class InUse(Exception):
    """Another process of this machine, or of one that shares the disk, holds the folder's lock."""


class StoragePath(Protocol):
    """A folder or a file. str(place) is its path or URL; storage_path gives the place back, also in another process.

    Whatever asks raises StorageError where no answer is to be had: a folder that is not there is empty, one that
    cannot be reached is not.
    """

    @property
    def name(self) -> str: ...

    def __truediv__(self, name: str) -> Self: ...

    def names(self) -> list[str]:
        """Of the files directly in this folder, sorted."""

    def is_there(self) -> bool:
        """Whether this file is. Asked by its name: what a machine knows of a folder on NFS may be seconds old."""

    def local(self) -> AbstractContextManager[Path]:
        """This file as one on a local disk, while the block lasts. FileNotFoundError where there is none."""

    def written(self) -> AbstractContextManager[Path]:
        """A local file to write: what it holds at the end of the block is this file's content from then on.

        It appears whole, in the place of the one before, or not at all. OSError where it cannot be kept.
        """

    def remove(self) -> None:
        """Drop this file, if it is there."""

    def move(self, to: Self) -> None:
        """This folder under another name."""

    def lock(self, wait_s: float) -> IO[str] | None:
        """Keep other processes out of this folder until what comes back is closed, or its holder dies.

        None where there is no lock to be had.

        Raises:
            InUse: another process held it for so long.
        """


def has_url_scheme(where: str) -> bool:
    """True for a URL: no path begins with a word and ://."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", where) is not None


def expanded(text: str, *, named: str) -> Path:
    """The absolute path of what somebody typed.

    Raises:
        ConfigError: it begins with ~ and no user of this machine, or it looks like a URL.
    """
    if _URL_LIKE.match(text):
        raise ConfigError(
            f"{named} must be a folder or file of a disk here, got {text!r}; a bucket is named in JEPA_STORAGE or "
            "data.path, as s3://bucket/prefix"
        )
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"{named} must be a folder, got {text!r}; nobody's home is called that") from None
