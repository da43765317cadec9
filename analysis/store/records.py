"""Runs of one experiment, read all at once: by plain SQL from an sqlite store, else by MLflow's client.

The sweep engine reads its ledger with the same functions.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.store.entities import PagedList

from analysis.store.mlflow_sql import active_rows, finite_or_inf
from analysis.store.uri import sqlite_file

_PAGE = 1000  # results per query of the client


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One run of the store, with the last values of its metrics."""

    run_id: str
    name: str
    status: str  # MLflow's own: RUNNING, FINISHED, FAILED, KILLED
    start_time: int  # ms since 1970
    end_time: int | None
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def read_records(client: MlflowClient, experiment_id: str, uri: str) -> list[Record]:
    """Every run of an experiment that is not deleted, oldest first. Writes nothing.

    Where plain SQL fails (tables of a later MLflow, a long lock), the slower client reads it or raises the error.
    """
    file = sqlite_file(uri)
    if file is not None:
        with suppress(sqlite3.Error):
            return in_order(_by_sql(file, experiment_id))
    found = all_pages(client.search_runs, [experiment_id], run_view_type=ViewType.ACTIVE_ONLY)
    return in_order([*map(_record, found)])


def recorded_version(tags: Mapping[str, str]) -> str:
    """Version of the code that made a run; "commit:<sha>" or "commit:<sha>+dirty" if it was recorded without one."""
    commit = f"commit:{tags.get('mlflow.source.git.commit', 'unknown')}"
    return tags.get("code_version", commit + "+dirty" * (tags.get("git_dirty") == "true"))


def in_order(records: list[Record]) -> list[Record]:
    """The records by start time and id."""
    return sorted(records, key=lambda record: (record.start_time, record.run_id))


def with_later(params: Mapping[str, str], later: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Parameters, with the default of every config field that was added after they were recorded.

    Args:
        later: later fields and their defaults; those of every config under "*", those of a method under its name.
    """
    return {**later.get("*", {}), **later.get(params.get("method", ""), {}), **params}


def base_of(tags: Mapping[str, str], later: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The parameters that all cells of a sweep share, from its experiment's tags; {} without that tag.

    Args:
        later: see with_later.
    """
    base, axes = (json.loads(tags.get(name, default)) for name, default in (("sweep.base", "{}"), ("sweep.axes", "[]")))
    return {key: text for key, text in with_later(base, later).items() if key not in axes} if base else {}


def _by_sql(file: Path, experiment_id: str) -> list[Record]:
    """Records by SQL. Equal texts are kept once: 10,000 runs take 50 MB instead of 170."""
    known: dict[str, str] = {}
    once = known.setdefault
    with active_rows(file, experiment_id) as rows:
        records = {
            run_id: Record(run_id=run_id, name=name, status=status, start_time=start, end_time=end)
            for run_id, name, status, start, end in rows("runs")
        }
        for run_id, key, text in rows("params"):
            records[run_id].params[once(key, key)] = once(text, text)
        for run_id, key, text in rows("tags"):
            records[run_id].tags[once(key, key)] = once(text, text)
        for run_id, key, value, is_nan in rows("latest_metrics"):
            records[run_id].metrics[once(key, key)] = float("nan") if is_nan else finite_or_inf(value)
    return list(records.values())


def all_pages(query: Callable[..., PagedList[Any]], *words: Any, **named: Any) -> list[Any]:
    """The results of a query of MLflow's client, page after page."""
    page = query(*words, **named, max_results=_PAGE)
    found = [*page]
    while page.token:
        page = query(*words, **named, max_results=_PAGE, page_token=page.token)
        found += page
    return found


def _record(run: Run) -> Record:
    return Record(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        start_time=run.info.start_time,
        end_time=run.info.end_time,
        params=dict(run.data.params),
        metrics={name: finite_or_inf(value) for name, value in run.data.metrics.items()},
        tags=dict(run.data.tags),
    )


def one_per_cell(records: Iterable[Record]) -> list[Record]:
    """One record per cell: the finished one of several, else the latest. Two would count as two seeds.

    Several exist after a lost answer to a run's creation, or in a copied store. The records have cell keys and are
    sorted, oldest first.
    """
    chosen: dict[str, Record] = {}
    for record in records:
        key = record.tags["cell_key"]
        if key not in chosen or record.tags.get("status") == "finished" or chosen[key].tags.get("status") != "finished":
            chosen[key] = record
    return in_order([*chosen.values()])
