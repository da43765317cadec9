"""Addresses of stores: the one parser of their URLs and paths, and the state of an sqlite file."""

import os
import re
import shlex
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from analysis.store.folders import is_url
from analysis.store.mlflow_sql import installed_schemas, stored_schema

_SQLITE = ("sqlite", "sqlite+pysqlite")
_OTHERS = "name another store, or move the file away"


class OneLineError(Exception):
    """An error whose message is one line, also in a notebook, where it ends the run of all cells."""

    def _render_traceback_(self) -> list[str]:
        """Text that Jupyter shows in place of a traceback."""
        return [str(self)]


class NothingToShow(OneLineError, LookupError):
    """The store or the sweep does not exist yet or cannot be used; the message is one line with the remedy."""


@dataclass(frozen=True)
class StoreAddress:
    """A store: an sqlite file, another MLflow store by URL, or a folder of exports by path or URL."""

    text: str  # that MLflow's client, or opened_folder for exports, takes
    file: Path | None = None  # of an sqlite store
    is_export: bool = False


def parse_store(text: str) -> StoreAddress:
    """The store of a URL or path. A path may be an sqlite file, a folder with mlflow.db, or a folder of exports.

    As in SQLAlchemy, %25 and %3F in an sqlite URL stand for % and ?; a path is taken as it is.

    Raises:
        NothingToShow: no address of a store.
    """
    check_name(text)
    scheme, slashes, rest = text.partition("://")
    if slashes and scheme.lower() in _SQLITE:
        place, question, options = rest.partition("?")
        path = unquote(place.removeprefix("/"))
        if not place.startswith("/") or path in ("", ":memory:") or "/" in options or "uri=" in options:
            rule = "must be sqlite:/// and the path of a file, with % as %25 and ? as %3F"
            raise NothingToShow(f"the store {rule}, got {text!r}; correct it")
        file = Path(path).absolute()
        return StoreAddress(sqlite_uri(file) + question + options, file)
    if is_url(text):
        return StoreAddress(text, is_export=True)
    if slashes or text.partition(":")[0] == "databricks":
        return StoreAddress(text)
    path = os.path.abspath(os.path.expanduser(text))
    found = Path(path, "mlflow.db") if os.path.isfile(f"{path}/mlflow.db") else Path(path)
    is_file = found.is_file() or found.suffix == ".db"
    return StoreAddress(sqlite_uri(found), found) if is_file else StoreAddress(text, is_export=True)


def store_uri(results: str = "results") -> str:
    """The store of MLFLOW_TRACKING_URI, or the sqlite file in JEPA_RESULTS, or in the given results folder.

    Notebooks, which run in their own folder, give theirs.

    Raises:
        NothingToShow: see parse_store.
    """
    return parse_store(os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(results_folder(results) / "mlflow.db")).text


def sqlite_uri(file: Path) -> str:
    """The URI of an sqlite file. With the driver's name where a name is quoted: else MLflow makes a quoted folder."""
    check_name(str(file))
    path = str(file.absolute())
    quoted = "".join(quote(sign) if sign in "%?" or not sign.isprintable() else sign for sign in path)
    return f"sqlite:///{path}" if quoted == path else f"sqlite+pysqlite:///{quoted}"


def sqlite_file(uri: str) -> Path | None:
    """The file of an sqlite store, None for any other."""
    return parse_store(uri).file


def store_line(uri: str, shown: str) -> str:
    """The line by which a command names the store that it has read, and says if there is none.

    Args:
        shown: the URI without secrets.
    """
    file = sqlite_file(uri)
    absent = "" if file is None or os.path.exists(file) else "; there is no store there yet, the first launch makes it"
    return f"store: {shown}{absent}"


def file_problem(file: Path, *, writes: bool = False) -> str:
    """The reason why an sqlite file cannot be read, or written, as a store, in one line with the remedy, or ""."""
    if not os.path.exists(file):
        return f"there is no MLflow store at {file} yet; python sweeps/demo_lejepa.py creates one"
    if not file.is_file():
        return f"{file} is no MLflow store but a folder or device; {_OTHERS}"
    read_only = f"the store {file} is read-only; make the file and its folder writable, or set JEPA_RESULTS to another"
    if writes and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return read_only
    try:
        lacking, version = stored_schema(file, writes=writes)
    except sqlite3.Error as error:
        remedies = {
            "SQLITE_BUSY": f"the store {file} is locked by another program; wait until it ends, or end it",
            "SQLITE_NOTADB": f"{file} is no MLflow store ({error}); {_OTHERS}",
            "SQLITE_READONLY": read_only,
        }
        damaged = f"the store {file} cannot be read ({error}); see its permissions, or restore a copy of it"
        return remedies.get(error.sqlite_errorname, damaged)
    present, known = installed_schemas()
    if lacking and version in ("", present):
        return f"{file} is no MLflow store (it lacks {', '.join(sorted(lacking))}); {_OTHERS}, or restore a copy of it"
    if version not in known:
        remedy = "install that version, or restore a copy of it"
        return f"the store {file} is of a newer MLflow (schema {version}); {remedy}"
    if version != present:
        upgrade = f"copy the file, then run mlflow db upgrade {shlex.quote(sqlite_uri(file))}"
        return f"the store {file} is of an older MLflow (schema {version}); {upgrade}"
    return ""


def results_folder(otherwise: str = "results") -> Path:
    """The folder of JEPA_RESULTS, or another.

    Raises:
        NothingToShow: it is a URL.
    """
    folder = os.environ.get("JEPA_RESULTS") or otherwise
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", folder):
        raise NothingToShow(f"JEPA_RESULTS must be a folder on a disk, got {folder!r}; set JEPA_STORAGE to a URL")
    return Path(os.path.expanduser(folder)).absolute()


def check_name(text: str) -> None:
    """Refuse a name whose bytes are not UTF-8: MLflow keeps it as text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NothingToShow(f"the store's name must be UTF-8, got {text!r}; rename its folder") from None
