"""Sources of sweeps: an MLflow store, or a folder of exports. Reading creates no file."""

import hashlib
import io
import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, ExperimentTag
from mlflow.exceptions import MlflowException
from pyarrow import fs

from analysis.store.folders import below, opened_folder
from analysis.store.frames import frame_of
from analysis.store.mlflow_sql import finite_or_inf, metric_rows
from analysis.store.records import all_pages, read_records
from analysis.store.scales import SCALE_NAMES
from analysis.store.uri import NothingToShow, StoreAddress, file_problem, parse_store, store_uri

ABOUT = "sweep.json"  # of an export: written last, with the digests of the other files
RUNS, POINTS = "runs.parquet", "history.parquet"
_LOGIN = re.compile(r"(?<=://)(?:[^\s/@:'\"]*:[^\s'\"]+|[^\s/@:'\"]+)@")  # user:password, or a token alone
_NAMES = "password|passwd|pwd|secret|token|credential|signature|key|(?<![a-z])pass|(?<![a-z])sig"
_WORD = re.compile(rf"(?i)([?&][\w.-]*(?:{_NAMES})=)[^&]+")
_DAMAGED = "write it again with python -m analysis export"


class Store:
    """An MLflow store.

    Every method raises NothingToShow, those of one sweep also if the sweep does not exist or has no runs.
    """

    def __init__(self, address: StoreAddress) -> None:
        self._uri, self._file = address.text, address.file
        if address.file is not None and (problem := file_problem(address.file)):  # MLflow would create a missing one
            raise NothingToShow(problem)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is down: seconds, not minutes
        for name in ("mlflow", "alembic"):  # they log every connection, and a traceback of each error
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with self._answering():
            self.client = MlflowClient(self._uri)

    def sweeps(self) -> dict[str, Experiment]:
        """Sweeps by name; experiments without sweep tags are left out."""
        with self._answering():
            found = all_pages(self.client.search_experiments)
        return {item.name: item for item in found if any(tag.startswith("sweep.") for tag in item.tags)}

    def has_runs(self, experiment: Experiment) -> bool:
        """True if a sweep holds the run of any cell."""
        with self._answering():
            return bool(self.client.search_runs([experiment.experiment_id], "tags.cell_key != ''", max_results=1))

    def runs(self, sweep: str) -> pd.DataFrame:
        """See analysis.store.runs.all_runs."""
        experiment = self._experiment(sweep)
        with self._answering():
            records = read_records(self.client, experiment.experiment_id, self._uri)
        try:
            frame = frame_of(experiment, records)
        except ValueError as error:
            raise NothingToShow(f"experiment {sweep} of {shown(self._uri)} is no sweep: {error}") from error
        if frame.empty:
            raise NothingToShow(_no_runs_yet(sweep, self._uri))
        return frame

    def points(self, sweep: str, run_ids: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
        """Columns run_id, metric, epoch, value, at (ms since 1970); all metrics if none is named.

        An epoch that was logged again, after a restart, has its latest value, of two at the same time the larger.
        Plain SQL reads one metric of 10,000 runs in 2 s; the client, with a request per run and metric, takes minutes.
        """
        experiment = self._experiment(sweep)
        with self._answering():
            if self._file is not None:
                with suppress(sqlite3.Error):
                    return _latest(metric_rows(self._file, experiment.experiment_id, metrics))
            return _latest(self._points_by_client(run_ids, metrics))

    def _points_by_client(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for run_id in run_ids:
            for name in metrics or self.client.get_run(run_id).data.metrics:
                for point in self.client.get_metric_history(run_id, name):
                    yield run_id, name, point.step, point.timestamp, point.value

    def _experiment(self, sweep: str) -> Experiment:
        with self._answering():
            experiment = self.client.get_experiment_by_name(sweep)
        if experiment is None:
            raise NothingToShow(_no_runs_yet(sweep, self._uri))
        if experiment.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
            raise NothingToShow(f"sweep {sweep} has been deleted in {shown(self._uri)}; `{restore}` brings it back")
        return experiment

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn the errors of an unreachable or damaged store into one line."""
        try:
            yield
        except (MlflowException, sqlite3.Error, ImportError) as error:
            remedy = "see that it is up, or name another with --store"
            raise NothingToShow(f"the store {shown(self._uri)} cannot be read ({_cause(error)}); {remedy}") from error


class Export:
    """A folder of exports, one folder per sweep, as analysis.store.export writes them; by path or URL.

    Its methods are those of Store and give equal frames of the same sweep; points have no column `at`.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        with opened_folder(where) as files:
            found = files.get_file_info(fs.FileSelector("", allow_not_found=True))
            names = [info.path for info in found if info.type == fs.FileType.Directory]
            abouts = files.get_file_info([f"{name}/{ABOUT}" for name in names])
            self._names = sorted(name for name, about in zip(names, abouts, strict=True) if about.is_file)
        if not self._names:
            raise NothingToShow(
                f"{where} is no folder of exports; python -m analysis export SWEEP --output DIR writes one"
            )

    def sweeps(self) -> dict[str, Experiment]:
        found = {}
        for about in map(self._about, self._names):
            tags = [ExperimentTag(key, text) for key, text in about["tags"].items()]
            found[about["sweep"]] = Experiment(about["experiment_id"], about["sweep"], "", "active", tags)
        return found

    def has_runs(self, experiment: Experiment) -> bool:
        return self._about(file_name(experiment.name))["runs"] > 0

    def runs(self, sweep: str) -> pd.DataFrame:
        return pd.read_parquet(self._checked(sweep, RUNS))

    def points(self, sweep: str, run_ids: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
        asked = [("metric", "in", [*metrics])] if metrics else None
        points = pd.read_parquet(self._checked(sweep, POINTS), filters=asked)
        return points[points["run_id"].isin(run_ids)]

    def _read(self, name: str, file: str) -> bytes:
        with opened_folder(self._where) as files:
            return files.open_input_file(f"{name}/{file}").read()

    def _about(self, name: str) -> dict[str, Any]:
        """The sweep.json of one sweep's export."""
        try:
            about = json.loads(self._read(name, ABOUT))
            return {key: about[key] for key in ("sweep", "experiment_id", "tags", "runs", "digests")}
        except (ValueError, KeyError, TypeError) as error:
            file = below(self._where, name, ABOUT)
            raise NothingToShow(f"{file} is damaged ({type(error).__name__}: {error}); {_DAMAGED}") from error

    def _checked(self, sweep: str, file: str) -> io.BytesIO:
        """One of a sweep's files, if its digest is that in sweep.json: a copy may be incomplete."""
        name = file_name(sweep)
        if name not in self._names:
            there = f"sweep {sweep} is not in the exports of {self._where}, which has {', '.join(self.sweeps())}"
            raise NothingToShow(f"{there}; python -m analysis export {sweep} --output {self._where} adds it")
        content = self._read(name, file)
        if hashlib.sha256(content).hexdigest() != self._about(name)["digests"][file]:
            where = below(self._where, name, file)
            raise NothingToShow(f"{where} is not what its {ABOUT} says it is; {_DAMAGED} {sweep}")
        return io.BytesIO(content)


RunSource = Store | Export


def open_source(store: str | RunSource | None) -> RunSource:
    """The store of a URL or path, see parse_store, or of store_uri; an open source is returned as it is.

    Raises:
        NothingToShow: there is none, or it cannot be used.
    """
    if isinstance(store, RunSource):
        return store
    address = parse_store(store or store_uri())
    return Export(address.text) if address.is_export else Store(address)


def shown(store: str) -> str:
    """A store as messages name it, without passwords before the host or in the query."""
    return _WORD.sub(r"\1***", _LOGIN.sub("", store))


def file_name(name: str) -> str:
    """The name of a file or folder for a sweep. "a/b" and "..", which lead elsewhere, are quoted."""
    return quote(name, safe=" ") if name.strip(".") else name.replace(".", "%2E")


def _latest(rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """One row per run, metric and step, from rows (run id, metric, step, time, value)."""
    points = pd.DataFrame.from_records(rows, columns=["run_id", "metric", "epoch", "at", "value"])
    points = points.astype({"run_id": str, "metric": str, "epoch": "int64", "at": "int64", "value": float})
    points["value"] = points["value"].map(finite_or_inf)
    place = ["run_id", "metric", "epoch"]
    points = points.sort_values([*place, "at", "value"]).drop_duplicates(place, keep="last")
    return points[[*place, "value", "at"]].reset_index(drop=True)


def _no_runs_yet(sweep: str, store: str) -> str:
    study, _, scale = sweep.rpartition("_")
    file = f"{study}.py --scale {scale}" if scale in SCALE_NAMES else f"{sweep}.py"
    return f"sweep {sweep} has no runs in {shown(store)} yet; python sweeps/{file} fills it"


def _cause(error: BaseException) -> str:
    """The innermost cause of an error in one line: the message of the socket or the database."""
    inner: BaseException | None = error
    seen: set[int] = set()  # causes may form a circle
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        error = inner if isinstance(inner, OSError) else getattr(inner, "orig", None) or error
        inner = inner.__cause__ or inner.__context__
    return shown(str(error).partition("\n")[0])[:160] or type(error).__name__
