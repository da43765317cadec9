"""Objects in S3 or Google Cloud Storage as files, by pyarrow. Credentials come from the environment or the machine."""

import functools
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import psutil
from pyarrow import ArrowException, fs

from jepa_train.base.errors import ConfigError
from jepa_train.storage.base import StorageError, StoragePath
from jepa_train.storage.local import LocalPath
from jepa_train.storage.paths import made_cache_dir

_SCHEMES = ("s3", "gs", "file")
_OPTIONS = ("region", "scheme", "endpoint_override")
_SECRET = re.compile("key|secret|token|password|signature|credential", re.IGNORECASE)  # the name of an option
_SOURCES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or the machine's service account",
}
_PAUSES_S = (1.0, 5.0, 15.0)  # between tries to read, each of which the client itself repeats for 6 s
_GS_PATIENCE_S = 10  # of Google's client, which would try for 15 minutes

_DENIED = re.compile(r"\b403\b|permission.?denied|access.?denied|forbidden", re.IGNORECASE)
_LOCAL = fs.LocalFileSystem()

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class BucketPath:
    """A folder or file in an object store: a StoragePath by URL.

    An object appears whole and is read as it was last written, so nothing half written is ever seen. There is no lock:
    of two writers of one cell, whose states are equal, the later one's files stay.
    """

    scheme: str
    bucket: str
    key: str
    query: str = ""

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{quote(self.key)}{'?' if self.query else ''}{self.query}"

    def __truediv__(self, name: str) -> "BucketPath":
        return replace(self, key=f"{self.key}/{name}".strip("/"))

    def names(self) -> list[str]:
        """Tries for a while. A bucket that is not there is an error, not an empty folder."""
        found = patiently(self._infos, f"{self} cannot be listed")
        return sorted(info.base_name for info in found if info.is_file)

    def is_there(self) -> bool:
        """Tries for a while."""
        return patiently(lambda: self.client().get_file_info(self.path).is_file, f"{self} cannot be read")

    @contextmanager
    def local(self) -> Iterator[Path]:
        """A copy that is gone at the end; tries for a while."""
        with self._transfer(f"{self} cannot be read") as file:
            patiently(lambda: self._copy(to=file), f"{self} cannot be read")
            yield file

    @contextmanager
    def written(self) -> Iterator[Path]:
        """Tries for a while, with the same file."""
        with self._transfer(f"{self} cannot be written") as file:
            yield file
            patiently(lambda: self._send(file), f"{self} cannot be written")

    def remove(self) -> None:
        with _told(f"{self} cannot be removed"):
            try:
                self.client().delete_file(self.path)
            except FileNotFoundError:
                return

    def move(self, to: "BucketPath") -> None:
        """File by file: copied through this machine, as stores copy objects up to 5 GB alone, then removed."""
        with _told(f"{self} cannot be moved"):
            store = self.client()
            for name in self.names():
                here, there = self / name, to / name
                fs.copy_files(here.path, there.path, source_filesystem=store, destination_filesystem=store)
                store.delete_file(here.path)

    def lock(self, wait_s: float) -> None:
        """There is none."""

    def _infos(self) -> list[fs.FileInfo]:
        """Of S3, to list says whether there is the bucket. Of Google it is asked for, which not everybody may."""
        store = self.client()
        try:
            return store.get_file_info(fs.FileSelector(self.path))
        except FileNotFoundError:
            if self.scheme == "gs" and _is_missing(store, self.bucket):
                raise OSError(f"there is no bucket {self.bucket}") from None
            return []

    def _copy(self, to: Path) -> None:
        store = self.client()
        fs.copy_files(self.path, str(to), source_filesystem=store, destination_filesystem=_LOCAL)

    def _send(self, file: Path) -> None:
        store, size = self.client(), file.stat().st_size
        fs.copy_files(str(file), self.path, source_filesystem=_LOCAL, destination_filesystem=store)
        kept = store.get_file_info(self.path).size
        if kept != size:  # where reading the local file failed, the client keeps what it has
            with suppress(OSError):
                self.remove()
            raise OSError(f"{kept} of {size} bytes arrived")

    @contextmanager
    def _transfer(self, failure: str) -> Iterator[Path]:
        """A name in a folder of the cache, which is gone at the end. /tmp may be memory, and small."""
        with _told(failure):
            try:
                below, mine = made_cache_dir() / "transfer", f"{socket.gethostname()}."
            except ConfigError as error:
                raise OSError(str(error)) from error
            below.mkdir(exist_ok=True)
            for folder in below.iterdir():
                process = folder.name.removeprefix(mine).partition(".")[0]
                if folder.name.startswith(mine) and process.isdigit() and not psutil.pid_exists(int(process)):
                    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
            made = tempfile.TemporaryDirectory(prefix=f"{mine}{os.getpid()}.", dir=below)
        with made as name:
            yield Path(name) / (self.name or "object")

    @property
    def path(self) -> str:
        """As the client names it."""
        return f"{self.bucket}/{self.key}".rstrip("/")

    def client(self) -> fs.FileSystem:
        return _connected(str(replace(self, key="")))


def _is_missing(store: fs.FileSystem, bucket: str) -> bool:
    """False where the store does not tell: a policy often ends at a prefix."""
    try:
        return store.get_file_info(bucket).type == fs.FileType.NotFound
    except OSError as error:
        if _DENIED.search(str(error)):
            return False
        raise


def opened(place: StoragePath) -> tuple[fs.FileSystem, str]:
    """The client of a place, and the place's name for it."""
    if isinstance(place, LocalPath):
        return _LOCAL, str(place)
    assert isinstance(place, BucketPath)
    return place.client(), place.path


def listed(place: StoragePath) -> list[fs.FileInfo]:
    """The files below a folder, at any depth, sorted; or the file itself."""
    client, path = opened(place)
    found = client.get_file_info(path)
    if found.type == fs.FileType.Directory:
        below = client.get_file_info(fs.FileSelector(path, recursive=True))
        return sorted((info for info in below if info.is_file), key=lambda info: info.path)
    return [found] if found.is_file else []


def checked(url: str, named: str) -> tuple[str, str, str, str]:
    """Scheme, bucket, path and query of a URL of a folder.

    Raises:
        ConfigError: see resolve.storage_path. The message repeats no credentials.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"{named} must be a path or a URL like s3://bucket/prefix, got neither ({error})") from None
    scheme, harmless = parts.scheme.lower(), f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if scheme not in _SCHEMES:
        raise ConfigError(
            f"{named} must be a path or begin with s3://, gs:// or file:///, got {harmless!r}; choose one"
        )
    options = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if "@" in parts.netloc or any(_SECRET.search(name) for name in options):
        remedy = _SOURCES.get(scheme, "the environment")
        raise ConfigError(f"{named} must hold no credentials, got some in {harmless!r}; leave them to {remedy}")
    if scheme == "file":
        if parts.netloc or parts.query or not parts.path.strip("/"):
            raise ConfigError(f"{named} must name a folder of this machine as file:///folder, got {harmless!r}")
        return scheme, "", parts.path, ""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{2,221}", parts.netloc):
        rule = f"a bucket of 3 or more characters (a-z, 0-9, . _ -) as in {scheme}://bucket/prefix"
        raise ConfigError(f"{named} must name {rule}, got {harmless!r}; correct it")
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown or parts.fragment:
        wrong = unknown[0] if unknown else f"#{parts.fragment}"
        raise ConfigError(
            f"{named} may end in ?{'=..&'.join(_OPTIONS)}=.., got {wrong!r} in {harmless!r}; leave it out"
        )
    return scheme, parts.netloc, parts.path, parts.query


@functools.lru_cache
def _connected(url: str) -> fs.FileSystem:
    """The client of a bucket: connecting may ask the store where the bucket lies."""
    if url.startswith("gs:"):
        url += f"{'&' if '?' in url else '?'}retry_limit_seconds={_GS_PATIENCE_S}"
    return fs.FileSystem.from_uri(url)[0]


def patiently(ask: Callable[[], T], failure: str) -> T:
    """What the store answers, if not at once: one that restarts must not look like one that is empty."""
    with _told(failure):
        for pause in _PAUSES_S:
            try:
                return ask()
            except FileNotFoundError:
                raise
            except OSError:
                time.sleep(pause)
        return ask()


@contextmanager
def _told(failure: str) -> Iterator[None]:
    """The client's errors in one line of ours."""
    try:
        yield
    except (FileNotFoundError, StorageError):
        raise
    except (OSError, ArrowException) as error:
        raise StorageError(f"{failure} ({' '.join(str(error).split())[:300]})") from error
