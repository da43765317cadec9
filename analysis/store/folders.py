"""Folders of exports, on a disk or in an object store, by path or URL. Credentials come from the environment."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from pyarrow import ArrowException, fs

_SECRET = re.compile("key|secret|token|password|signature|credential", re.IGNORECASE)


class NoFolder(LookupError):
    """The URL is wrong, or its object store cannot be reached; the message is one line."""


def is_url(where: str) -> bool:
    """True for a URL of files: s3://, gs:// or file:///. Other URLs are of MLflow stores."""
    return where.lower().startswith(("s3://", "gs://", "file://"))


def below(where: str, *names: str) -> str:
    """The path or URL of a file or folder below a path or URL."""
    url, question, options = where.partition("?") if is_url(where) else (where, "", "")
    return "/".join([url.rstrip("/"), *(quote(name) if is_url(where) else name for name in names)]) + question + options


@contextmanager
def opened_folder(where: str) -> Iterator[fs.FileSystem]:
    """The folder of a path or URL as a file system; errors of the block that come from the storage are one line.

    Raises:
        NoFolder: the URL is wrong or has credentials, or the storage does not answer.
    """
    url, _, options = where.partition("?")
    scheme, _, place = url.partition("://")
    if is_url(where) and ({"@", ":"} & {*place.partition("/")[0]} or _SECRET.search(options)):
        without_login = f"{scheme}://{place.rpartition('@')[2]}"
        raise NoFolder(f"{without_login} must hold no credentials; leave them to the environment")
    patience = ("&" if options else "?") + "retry_limit_seconds=10"  # Google's client would try for 15 minutes
    try:
        address = where + patience * (scheme.lower() == "gs")
        if not is_url(where):
            address = os.path.abspath(os.path.expanduser(where))
        client, path = fs.FileSystem.from_uri(address)
        yield fs.SubTreeFileSystem(path, client)
    except (OSError, ArrowException) as error:
        raise NoFolder(f"{where} cannot be used ({' '.join(str(error).split())[:200]})") from error
