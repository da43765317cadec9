"""The one reader of runs: what plain SQL finds is what MLflow's client says, and the client steps in where it must."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, ViewType
from stores import StoreWriter

from analysis.store.mlflow_sql import SCHEMA
from analysis.store.records import Record, read_records

METRICS = {"val/a": 0.1 + 0.2, "val/nan": math.nan, "val/inf": math.inf, "val/-inf": -math.inf, "val/tiny": 5e-324}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A store with three runs of an experiment, one of them deleted, and another's run; the experiment's id."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('records')}/mlflow.db"
    writer = StoreWriter(uri)
    sweep, other = writer.sweep("s", axes=["method.lamb"]), writer.sweep("other", axes=[])
    first = writer.run(sweep, {"method.lamb": 0.1, "note": "1 ± 'x'"}, {"val/a": [0.5, 0.25]}, cell_key="a")
    writer.run(sweep, {"method.lamb": 0.2}, cell_key="b", status="running")
    writer.client.delete_run(writer.run(sweep, {"method.lamb": 0.3}, {"val/a": 0.5}, cell_key="c"))
    writer.run(other, {"method.lamb": 0.1}, {"val/a": 0.5}, cell_key="a")
    writer.client.log_batch(first, metrics=[Metric(name, value, 2**41, 3) for name, value in METRICS.items()])
    writer.client.log_metric(first, "val/a", 0.75, timestamp=2**41, step=2)  # an earlier epoch, later
    return uri, sweep


def comparable(records: list[Record]) -> list[tuple[object, ...]]:
    """NaN is not equal to itself, but its text is."""
    fields = ("run_id", "name", "status", "start_time", "end_time", "params", "tags")
    return [(*(getattr(item, name) for name in fields), sorted(map(str, item.metrics.items()))) for item in records]


class Refused:
    """In the place of a client that must not be asked."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the client was asked for {name}")


def test_the_queries_are_written_for_the_tables_of_the_installed_mlflow(small: tuple[str, str]) -> None:
    with closing(sqlite3.connect(small[0].removeprefix("sqlite:///"))) as connection:
        assert connection.execute("select version_num from alembic_version").fetchall() == [(SCHEMA,)]


def test_sql_finds_what_the_client_says(small: tuple[str, str]) -> None:
    uri, sweep = small
    records = read_records(Refused(), sweep, uri)  # type: ignore[arg-type]
    assert [(item.tags["cell_key"], item.params["method.lamb"]) for item in records] == [("a", "0.1"), ("b", "0.2")]
    assert {name: str(value) for name, value in records[0].metrics.items()} == {
        name: str(value) for name, value in METRICS.items()
    }
    assert records[1].end_time is None
    by_client = MlflowClient(uri).search_runs([sweep], "", ViewType.ACTIVE_ONLY, order_by=["attributes.start_time"])
    for record, run in zip(records, by_client, strict=True):
        assert (record.params, record.tags) == (run.data.params, run.data.tags)
        assert (record.run_id, record.name, record.status) == (run.info.run_id, run.info.run_name, run.info.status)
        assert (record.start_time, record.end_time) == (run.info.start_time, run.info.end_time)
        assert record.metrics.keys() == run.data.metrics.keys()


def test_tables_that_plain_sql_does_not_know_are_left_to_the_client(
    small: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, sweep = small
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(Path(uri.removeprefix("sqlite:///")).read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("alter table latest_metrics rename column is_nan to no_number")
        connection.commit()
    monkeypatch.setattr("analysis.store.records._PAGE", 1)  # so that there is a second page
    assert comparable(read_records(MlflowClient(uri), sweep, f"sqlite:///{copy}")) == comparable(
        read_records(MlflowClient(uri), sweep, uri)
    )


def test_reading_leaves_the_store_as_it_is(small: tuple[str, str]) -> None:
    uri, sweep = small
    file = Path(uri.removeprefix("sqlite:///"))
    before = file.read_bytes()
    read_records(MlflowClient(uri), sweep, uri)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["mlflow.db"]
