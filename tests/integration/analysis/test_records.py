"""Reader of runs: plain SQL and MLflow's client give equal records, and the client reads unknown tables.

Run: python -m pytest tests/integration/analysis/test_records.py
"""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from stores import StoreWriter

from analysis.store.mlflow_sql import SCHEMA
from analysis.store.records import Record, read_records

METRICS = {"val/a": 0.1 + 0.2, "val/nan": math.nan, "val/inf": math.inf, "val/-inf": -math.inf, "val/tiny": 5e-324}


def comparable(records: list[Record]) -> list[tuple[object, ...]]:
    """NaN is not equal to itself, but its text is."""
    fields = ("run_id", "name", "status", "start_time", "end_time", "params", "tags")
    return [(*(getattr(item, name) for name in fields), sorted(map(str, item.metrics.items()))) for item in records]


class NoClient:
    """A client that fails when it is used."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the client was asked for {name}")


def test_sql_and_the_client_give_equal_records_and_change_nothing(
    template: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(template)
    uri = f"sqlite:///{file}"
    writer = StoreWriter(uri)
    sweep, other = writer.sweep("s", axes=["method.lamb"]), writer.sweep("other", axes=[])
    first = writer.run(sweep, {"method.lamb": 0.1, "note": "1 ± 'x'"}, {"val/a": [0.5, 0.25]}, cell_key="a")
    writer.run(sweep, {"method.lamb": 0.2}, cell_key="b", status="running")
    writer.client.delete_run(writer.run(sweep, {"method.lamb": 0.3}, {"val/a": 0.5}, cell_key="c"))
    writer.run(other, {"method.lamb": 0.1}, {"val/a": 0.5}, cell_key="a")
    writer.client.log_batch(first, metrics=[Metric(name, value, 2**41, 3) for name, value in METRICS.items()])
    writer.client.log_metric(first, "val/a", 0.75, timestamp=2**41, step=2)  # an earlier epoch, later

    before = file.read_bytes()
    records = read_records(NoClient(), sweep, uri)  # type: ignore[arg-type]
    assert [(item.tags["cell_key"], item.params["method.lamb"]) for item in records] == [("a", "0.1"), ("b", "0.2")]
    assert {name: str(value) for name, value in records[0].metrics.items()} == {
        name: str(value) for name, value in METRICS.items()
    }
    assert records[1].end_time is None
    assert file.read_bytes() == before
    with closing(sqlite3.connect(file)) as connection:
        version = connection.execute("select version_num from alembic_version").fetchall()
        assert version == [(SCHEMA,)], "the queries are written for another version of MLflow"

    copy = tmp_path / "copy.db"
    copy.write_bytes(before)
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("alter table latest_metrics rename column is_nan to no_number")
    monkeypatch.setattr("analysis.store.records._PAGE", 1)  # so that there is a second page
    assert comparable(read_records(MlflowClient(uri), sweep, f"sqlite:///{copy}")) == comparable(records)
