"""Settings, error codes and limits of MLflow that the store relies on beyond documented calls. Written for 3.17."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError
from urllib3.exceptions import HTTPError

from analysis.store.uri import NothingToShow, file_problem, parse_store, sqlite_uri
from jepa_train.base.errors import ConfigError
from jepa_train.base.security import hidden
from jepa_train.storage.paths import results_dir

# Errors of a store that cannot be reached or does not answer: a server by HTTP, a database, a file
TROUBLE = (MlflowException, SQLAlchemyError, OSError)
# Error codes of a store that answers and will never take a write; all others may pass
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
_T = TypeVar("_T")
_LATE_S = 5.0  # after which the wait for an answer is reported
_BUSY_S = 120.0  # for which a launch that begins waits for a busy store
_BUSY = ("503", "timed out", "database is locked")  # in the causes of errors that may pass
BATCH = 900  # rows of one log_batch: MLflow takes 1,000 metrics, params and tags together
LONGEST_DESCRIPTION = 19_000  # characters: MLflow takes 20,000 in an experiment's tag


class Refused(Exception):
    """Write that the store will never take: its run was deleted, or MLflow's rules forbid it."""


def open_client(uri: str) -> MlflowClient:
    """A client of the store; an sqlite file that is missing is created.

    Raises:
        NothingToShow: an sqlite file that cannot be used, or a folder of exports.
        ConfigError: a database without an installed driver.
    """
    address = parse_store(uri)
    if address.is_export:
        remedy = "write sqlite:/// and the path of a file, or http://host:port"
        raise NothingToShow(f"MLFLOW_TRACKING_URI must be an MLflow store, got the folder {hidden(uri)!r}; {remedy}")
    # MLflow's own retry would repeat a creation that was carried out but not acknowledged, and make two runs.
    # Overrides the user's value, and that of analysis, which only reads
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    limit = os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a server that hangs; a busy one takes longer
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # MLflow logs a traceback of what it raises
    if address.file is not None:
        if not os.path.exists(address.file):
            _create(address.file)
        if problem := file_problem(address.file):
            raise NothingToShow(problem)
    try:
        client = MlflowClient(uri)
    except ImportError as error:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI must be a server's http://host:port, or a database whose driver is installed, "
            f"got {hidden(uri)!r} ({error}); start the server of docs/team.md over that database, and name it"
        ) from None
    line = f"waiting for the store {hidden(uri)} to answer, up to {limit} s for each request\n"
    late = threading.Timer(_LATE_S, sys.stderr.write, [line])
    late.daemon = True
    late.start()
    try:
        when_free(lambda: client.search_experiments(max_results=1))
    finally:
        late.cancel()
    return client


def when_free(call: Callable[[], _T]) -> _T:
    """Result of a call of the store that may be repeated: again for two minutes while the store is busy.

    Raises:
        An error of TROUBLE: of the last call; at once if the store is away, or refuses.
    """
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            return call()
        except TROUBLE as error:
            cause = root_cause(error)
            if time.monotonic() > until or not any(text in cause for text in _BUSY):
                raise
            time.sleep(1)


def _create(file: Path) -> None:
    """Create an sqlite store, by one process after the other; it appears whole, whatever kills the process."""
    part, locks = file.with_name(f"{file.name}.part"), results_dir() / "locks"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            with suppress(OSError):  # a disk without locks
                locks.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(locks / "store.lock"))
            if not file.exists():
                part.unlink(missing_ok=True)
                MlflowClient(sqlite_uri(part)).search_experiments(max_results=1)  # MLflow creates the tables
                part.replace(file)
    except OSError as error:
        remedy = "set JEPA_RESULTS, or MLFLOW_TRACKING_URI, to a place that is writable"
        raise NothingToShow(f"the store {file} cannot be created ({error.strerror}); {remedy}") from None


def root_cause(error: BaseException) -> str:
    """The innermost cause of an error in one short line, as of a socket or a database."""
    inner: BaseException | None = error
    seen: set[int] = set()  # causes may form a circle
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        error = inner if isinstance(inner, OSError | HTTPError) else getattr(inner, "orig", None) or error
        inner = inner.__cause__ or inner.__context__
    if error.args and isinstance(error.args[-1], Exception):  # as urllib3 wraps a connection that was cut
        error = error.args[-1]
    text = hidden(next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__))
    return text if len(text) <= 160 else f"{text[:157]}..."
