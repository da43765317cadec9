"""doctor's look at the store: reachable, writable, who holds a sweep, what waits to be written."""

import json
import os
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jepa_train.base.errors import ConfigError
from jepa_train.storage.paths import results_dir
from sweeps.engine.store.lock import holder_of
from sweeps.engine.store.mlflow_client import open_client
from sweeps.engine.store.reader import shown_uri, store_uri

_SLOW_S = 0.5  # for one read: each ended cell takes several


@dataclass(frozen=True)
class Told:
    """One line of doctor."""

    level: Literal["ok", "warning", "problem"]
    name: str
    text: str
    remedy: str = ""


def check_store() -> Iterator[Told]:
    """The store, holders that are gone, and metrics that wait for the store."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a server that is down: one try
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    uri = store_uri()
    file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if file is not None and not file.is_file():
        yield Told("ok", "store", f"{shown_uri()} is not there yet: the first sweep makes it")
    else:
        yield from _opened(uri, file)
    waiting = sorted(path for path in (results_dir() / "spool").glob("**/*") if path.is_file())
    if waiting:
        size = sum(path.stat().st_size for path in waiting) / 1e6
        remedy = "the next launch of their sweeps writes them"
        yield Told("warning", "spool", f"{len(waiting)} files, {size:.1f} MB of metrics wait for the store", remedy)
    else:
        yield Told("ok", "spool", "empty")


def _opened(uri: str, file: Path | None) -> Iterator[Told]:
    unwritable, shown = _unwritable(file) if file is not None else "", shown_uri()
    if unwritable:
        remedy = "set JEPA_RESULTS to a folder of yours, or MLFLOW_TRACKING_URI to another store"
        yield Told("problem", "store", f"{shown} cannot be written to: {unwritable}", remedy)
        return
    try:
        client = open_client(uri)
        began = time.monotonic()
        client.search_experiments(max_results=1)
        seconds = time.monotonic() - began
    except ConfigError as error:
        yield Told("problem", "store", str(error))
        return
    except MlflowException as error:
        remedy = "start the server, or unset MLFLOW_TRACKING_URI" if file is None else f"mlflow db upgrade {shown}"
        yield Told("problem", "store", f"{shown} cannot be used: {str(error).partition(chr(10))[0]}", remedy)
        return
    size = f", {file.stat().st_size / 1e6:.1f} MB" if file is not None else ""
    slow = seconds > _SLOW_S
    remedy = "move the store to a faster or nearer disk, or server" if slow else ""
    yield Told("warning" if slow else "ok", "store", f"{shown}{size}, a read takes {1000 * seconds:.0f} ms", remedy)
    if uri.startswith("http"):
        yield from _server_version(uri)
    yield from _holders(client)


def _unwritable(file: Path) -> str:
    """Why the sqlite file cannot be written to, "" where it can: asks for the write lock and gives it back."""
    if not os.access(file.parent, os.W_OK):
        return f"{file.parent} is read-only"
    if not os.access(file, os.W_OK):
        return "the file is read-only"
    try:
        with closing(sqlite3.connect(file, timeout=2, isolation_level=None)) as connection:
            connection.execute("begin immediate")
            connection.execute("rollback")
    except sqlite3.Error as error:
        return str(error)
    return ""


def _server_version(uri: str) -> Iterator[Told]:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/version", timeout=3) as response:
            server = response.read(100).decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        yield Told("warning", "MLflow server", f"does not tell its version ({error})")
        return
    same = server == mlflow.__version__
    remedy = "" if same else "install the same version on both sides"
    text = f"{server}, here {mlflow.__version__}"
    yield Told("ok" if same else "warning", "MLflow server", text, remedy)


def _holders(client: MlflowClient) -> Iterator[Told]:
    """Sweeps that a launch runs, and those whose launch died."""
    for experiment in client.search_experiments(max_results=1000):
        tag = experiment.tags.get("sweep.holder", "")
        if not tag or not json.loads(tag):
            continue
        holder = holder_of(experiment.name)
        if holder is not None:
            yield Told("ok", "running", f"{experiment.name}, by {holder.description}")
        else:
            yield Told("warning", "left", f"{experiment.name}: its launch is gone", "the next launch takes it over")
