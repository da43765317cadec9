"""Folders of exports, on a disk or in an object store, by path or URL. Credentials come from the environment."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

from pyarrow import ArrowException, fs

_PIECE = 1 << 20  # bytes that are digested together
_LOCAL = fs.LocalFileSystem()


class NoFolder(LookupError):
    """The URL is wrong, or what it names cannot be reached; the message is one line."""


def is_url(where: str) -> bool:
    """Whether it is a URL of files: s3://, gs:// or file:///. Other URLs are of MLflow stores."""
    return where.startswith(("s3://", "gs://", "file://"))


class Folder:
    """A folder that is read, and in an object store written. Every method raises NoFolder where no answer is to be had.

    Args:
        where: path or URL.
    """

    def __init__(self, where: str, *below: str) -> None:
        self._where, self._below = where, below
        with self._answering():
            if not is_url(where):
                self._client, path = _LOCAL, str(Path(where).expanduser())
            else:
                self._client, path = fs.FileSystem.from_uri(_checked(where))
        self._path = "/".join([path.rstrip("/"), *below])

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self._where, *self._below, name)

    def __str__(self) -> str:
        url, options = _split(self._where)
        below = map(quote, self._below) if is_url(self._where) else self._below
        return f"{'/'.join([url.rstrip('/'), *below]) or '/'}{options}"

    @property
    def parent(self) -> str:
        """The path or URL of the folder in which this one lies."""
        url, options = _split(self._where)
        return f"{url.rstrip('/').rpartition('/')[0] or '.'}{options}"

    def path(self, name: str) -> str:
        """The path or URL of a file in here."""
        return str(self / name)

    def folders(self) -> list[str]:
        """The names of the folders in this one, sorted."""
        with self._answering():
            found = self._client.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
            return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def has(self, name: str) -> bool:
        """Whether this file lies here."""
        with self._answering():
            return bool(self._client.get_file_info(f"{self._path}/{name}").is_file)

    def open(self, name: str) -> IO[bytes]:
        """The file, to be read at any place."""
        with self._answering():
            return self._client.open_input_file(f"{self._path}/{name}")

    def digest(self, name: str) -> str:
        """SHA-256 of a file."""
        hashed = hashlib.sha256()
        with self.open(name) as stream, self._answering():
            while piece := stream.read(_PIECE):
                hashed.update(piece)
        return hashed.hexdigest()

    def take(self, files: Iterable[Path]) -> list[str]:
        """Copy files here, one after the other; each appears whole. Where they lie now."""
        copies = []
        with self._answering():
            for file in files:
                fs.copy_files(str(file), f"{self._path}/{file.name}", destination_filesystem=self._client)
                copies.append(self.path(file.name))
        return copies

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise NoFolder(f"{self._where} cannot be used ({reason})") from error


def _split(where: str) -> tuple[str, str]:
    """A path, or a URL and its options."""
    url, question, options = where.partition("?") if is_url(where) else (where, "", "")
    return url, question + options


def _checked(url: str) -> str:
    """The URL as the client wants it, without credentials, which would stand in every message."""
    parts = urlsplit(url)
    if "@" in parts.netloc or re.search("(key|secret|token)[a-z_]*=", parts.query):
        without_login = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise NoFolder(f"{without_login} must hold no credentials; leave them to the environment")
    if parts.scheme == "gs":  # Google's client would try for 15 minutes
        return f"{url}{'&' if parts.query else '?'}retry_limit_seconds=10"
    return url
