"""Storage that outlives a machine: folders and files on a disk, in S3 or in Google Cloud Storage, by path or URL.

On pyarrow.fs, which pandas needs anyway: fsspec would add s3fs and gcsfs with a pinned botocore, and save no lines.
"""

import functools
import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout
from pyarrow import fs

from jepa_train.base.errors import ConfigError
from jepa_train.storage.paths import absolute_path, has_url_scheme, results_dir

PAUSES_S = (1.0, 5.0, 15.0)  # between attempts, each of which the client itself repeats for some seconds
_SECRET = re.compile("key|secret|token|password|signature|credential", re.IGNORECASE)

T = TypeVar("T")


class StorageError(OSError):
    """The storage cannot be reached or refuses, so its content is unknown. The message is one line."""


@dataclass(frozen=True)
class StoragePath:
    """A folder or file; str() gives its path or URL, from which storage_path makes an equal one in any process.

    Every method raises StorageError if the storage does not answer; in an object store, after several attempts.

    Args:
        root: "s3://bucket" or "gs://bucket"; "" on a disk.
        key: absolute path on the disk or in the bucket.
        query: "", or "?" and options of the client, as in a URL.
    """

    root: str
    key: str
    query: str = ""

    def __str__(self) -> str:
        return f"{self.root}{quote(self.key)}{self.query}" if self.root else self.key

    def __truediv__(self, name: str) -> "StoragePath":
        return replace(self, key=f"{self.key.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def path(self) -> str:
        """The path that pyarrow's client takes."""
        return self.root.partition("://")[2] + self.key

    def names(self) -> list[str]:
        """The names of the files in this folder, sorted."""
        return [info.base_name for info in self.files(recursive=False)]

    def files(self, *, recursive: bool = True) -> list[fs.FileInfo]:
        """The files in this folder, sorted by path, or this file itself; [] if there is neither.

        A missing bucket of S3 is an error, not an empty folder.
        """

        def found(client: fs.FileSystem) -> list[fs.FileInfo]:
            info = client.get_file_info(self.path)
            return [info] if info.is_file else client.get_file_info(fs.FileSelector(self.path, recursive=recursive))

        try:
            return sorted(filter(lambda info: info.is_file, self._try("read", found)), key=lambda info: info.path)
        except FileNotFoundError:
            return []

    def read_bytes(self) -> bytes:
        """The content of this file.

        Raises:
            FileNotFoundError: it does not exist.
        """
        return self._try("read", lambda client: client.open_input_file(self.path).read())

    def write_bytes(self, content: bytes | memoryview) -> None:
        """Replace this file's content atomically: readers find the old or the new file, never a part of one."""

        def write(client: fs.FileSystem) -> None:
            if self.root:  # an object appears when its stream is closed
                with client.open_output_stream(self.path) as stream:
                    stream.write(content)
                return
            part = Path(f"{self.key}.{uuid.uuid4().hex}.part")
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    file.write(content)
                    os.fsync(file.fileno())
                part.replace(self.key)
            finally:
                part.unlink(missing_ok=True)

        self._try("written", write)

    def copy_to(self, target: Path) -> None:
        """Copy this file, or all files below this folder, to a local path; a further attempt overwrites the last."""
        disk = fs.LocalFileSystem()
        self._try(f"copied to {target}", lambda client: fs.copy_files(self.path, str(target), client, disk))

    def remove(self) -> None:
        """Delete this file if it exists."""
        with suppress(FileNotFoundError):
            self._try("removed", lambda client: client.delete_file(self.path))

    def move(self, to: "StoragePath") -> None:
        """Give this folder another name in the same storage; in an object store, one file after the other."""

        def move(client: fs.FileSystem) -> None:
            for source, target in [(self / name, to / name) for name in self.names()] if self.root else [(self, to)]:
                client.move(source.path, target.path)

        self._try("moved", move)

    def lock(self, wait_s: float) -> AbstractContextManager[object]:
        """Keep other processes that share this disk out of this folder; released when its holder dies.

        Object stores and some disks have no locks: of two writers of equal states the later one's files stay.

        Raises:
            StorageError: another process has held it for `wait_s` seconds.
        """
        if self.root:
            return nullcontext()
        try:
            os.makedirs(self.key, exist_ok=True)
            return FileLock(f"{self.key}/lock").acquire(timeout=wait_s)
        except Timeout:
            raise StorageError(f"{self} is being written by another process; wait until it has ended") from None
        except OSError:
            return nullcontext()

    def _try(self, verb: str, call: Callable[[fs.FileSystem], T]) -> T:
        """call(client), again after each pause while an object store does not answer. FileNotFoundError passes."""
        pauses = iter(PAUSES_S if self.root else ())
        while True:
            try:
                return call(connect(self.root + self.query))
            except FileNotFoundError:
                raise
            except (OSError, ValueError) as error:  # ValueError: the client refuses the URL
                pause = None if isinstance(error, ValueError) else next(pauses, None)
                if pause is None:
                    reason = " ".join(str(error).split())[:300]
                    raise StorageError(f"{self} cannot be {verb} ({reason})") from error
                time.sleep(pause)


@functools.lru_cache
def connect(url: str) -> fs.FileSystem:
    """The client of a bucket, or of the disk for ""; connecting may ask the store for the bucket's region."""
    if url.startswith("gs:"):  # else Google's client would retry for 15 minutes
        url += f"{'&' if '?' in url else '?'}retry_limit_seconds=10"
    return fs.FileSystem.from_uri(url or "/")[0]


def storage_path(where: str | Path | StoragePath, *, named: str = "the path") -> StoragePath:
    """The storage of a path or URL: s3://bucket/prefix, gs://bucket/prefix or file:///folder. Asks no server.

    Args:
        named: the variable or option, for the message.

    Raises:
        ConfigError: another kind of URL, or one with credentials, which would be written to runs and logs.
    """
    if isinstance(where, StoragePath):
        return where
    text = str(where)
    if not has_url_scheme(text):
        return StoragePath("", str(absolute_path(text, named=named)))
    scheme, _, rest = text.partition("://")
    place, question, query = rest.partition("?")
    bucket, slash, key = place.partition("/")
    without_login = f"{scheme}://{place.rpartition('@')[2]}" if rest else text
    if {"@", ":"} & {*bucket} or _SECRET.search(query):
        remedy = "leave them to the environment"
        raise ConfigError(f"{named} must hold no credentials, got some in {without_login!r}; {remedy}")
    if (scheme, bool(bucket)) not in (("s3", True), ("gs", True), ("file", False)):
        rule = "a path or begin with s3://bucket, gs://bucket or file:///"
        raise ConfigError(f"{named} must be {rule}, got {without_login!r}; choose one")
    root = f"{scheme}://{bucket}" if bucket else ""
    return StoragePath(root, (slash + unquote(key)).rstrip("/"), question + query)


def storage_dir() -> StoragePath:
    """The folder of checkpoints and exports: JEPA_STORAGE, or the results folder.

    Raises:
        ConfigError: see storage_path.
    """
    return storage_path(os.environ.get("JEPA_STORAGE") or results_dir(), named="JEPA_STORAGE")


def checkpoints_dir(sweep: str) -> StoragePath:
    """The folder of a sweep's checkpoints, one folder per cell key: each sweep trains its own."""
    return storage_dir() / "checkpoints" / sweep
