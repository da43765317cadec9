"""Places that outlive a machine: a folder or file on a disk, which may be shared, or in an object store, by its URL."""

import contextlib
import fcntl
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self
from urllib.parse import unquote

from jepa_train.base.errors import ConfigError

_LOCK = "lock"
_URL_LIKE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")


class StorageError(OSError):
    """The storage is away or refuses: nothing is known of what lies there. The message is one line."""


class InUse(Exception):
    """Another process of this machine, or of one that shares the disk, holds the folder's lock."""


class Place(Protocol):
    """A folder or a file. str(place) is its path or URL; place_of gives the place back, also in another process.

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


@dataclass(frozen=True)
class Disk:
    """On a disk of this machine, or one that machines share (NFS)."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "Disk":
        return Disk(self.path / name)

    def names(self) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if entry.is_file())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read ({error.strerror})") from error

    def is_there(self) -> bool:
        try:
            return stat.S_ISREG(self.path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read ({error.strerror})") from error

    @contextmanager
    def local(self) -> Iterator[Path]:
        yield self.path

    @contextmanager
    def written(self) -> Iterator[Path]:
        part = self.path.with_suffix(f".{socket.gethostname()}-{os.getpid()}.part")  # machines have equal numbers
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def move(self, to: "Disk") -> None:
        self.path.rename(to.path)

    def lock(self, wait_s: float) -> IO[str] | None:
        """By flock, which the system drops when its holder dies. Not every file system has it, or room for the file."""
        deadline = time.monotonic() + wait_s
        with contextlib.suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / _LOCK).open("w")
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return file
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        file.close()
                        raise InUse from None
                    time.sleep(0.1)
                except OSError:
                    file.close()
                    raise
        return None


def is_url(where: str) -> bool:
    """Whether it is meant as a URL: no path begins with a word and ://."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", where) is not None


def place_of(where: "str | Path | Place", *, named: str = "a place") -> Place:
    """The place of a path or URL: s3://bucket/prefix, gs://bucket/prefix, file:///folder. Asks no server.

    Args:
        named: what a message calls it, a variable or an option.

    Raises:
        ConfigError: no such kind of URL, no bucket, or credentials in it, which would be written to runs and logs.
    """
    if not isinstance(where, str | Path):
        return where
    text = str(where)
    if not is_url(text):
        return Disk(expanded(text, named=named))
    from jepa_train.storage.bucket import Bucket, checked  # a disk needs no client

    scheme, netloc, path, query = checked(text, named)
    if scheme == "file":
        return Disk(Path(unquote(path)))
    return Bucket(scheme=scheme, bucket=netloc, key=unquote(path).strip("/"), query=query)


@contextmanager
def mark(place: Place) -> Iterator[str]:
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
        seen = (place_of(where) / name).is_there()
    except (StorageError, ConfigError) as error:
        return str(error)
    return "" if seen else f"{where} is another folder here"


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
