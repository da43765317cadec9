"""Stores as they really are: whatever is wrong with one is counted or said in one line, and no number is wrong."""

import math
import re
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from stores import StoreWriter

from analysis import tables
from analysis.select.selection import current
from analysis.store import sources
from analysis.store.cell_list import to_tags
from analysis.store.runs import NothingToShow, load_histories, load_runs, notes_of, sweeps_in
from analysis.table.cells import Quantity, cell_of

GOALS = [{"metric": "val/x"}]
DONE = {"val/x": 0.5, "test/linear_top1": 0.9}


class Small:
    """A store of this test's own with one sweep over method.p and method.mu."""

    def __init__(self, file: Path) -> None:
        self.file, self.uri = file, f"sqlite:///{file}"
        self.writer = StoreWriter(self.uri)
        present = {"goals": GOALS, "grid": {"method.p": [1], "method.mu": [0.0]}, "seeds": [0, 1, 2]}
        self.sweep = self.writer.sweep("s", axes=["method.p", "method.mu"], present=present)

    def cell(self, key: str, seed: int = 0, metrics: dict[str, float] = DONE, **tags: str) -> str:
        params = {"method.p": 1, "method.mu": 0.0, "seed": seed}
        return self.writer.run(self.sweep, params, metrics, cell_key=key, **tags)

    def execute(self, statement: str, *values: object) -> None:
        """Another hand in the store."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute(statement, values)

    def text(self) -> str:
        """What a table says of the one cell, in percent."""
        found = current(load_runs("s", self.uri))
        return cell_of(found, Quantity(label="test", metric="test/linear_top1", factor=100)).text(".0f")


@pytest.fixture
def small(tmp_path: Path, template: bytes) -> Small:
    (tmp_path / "mlflow.db").write_bytes(template)
    return Small(tmp_path / "mlflow.db")


def test_two_runs_of_a_cell_are_no_two_seeds(small: Small) -> None:
    small.cell("a", metrics={**DONE, "test/linear_top1": 0.1}, status="interrupted")
    small.cell("a", metrics={**DONE, "test/linear_top1": 0.8})
    small.cell("a", metrics={**DONE, "test/linear_top1": 0.2}, status="running")
    small.cell("b", 1, metrics={**DONE, "test/linear_top1": 0.3}, status="diverged")
    small.cell("b", 1, metrics={**DONE, "test/linear_top1": 0.4}, status="running")
    assert small.text() == "80 (n=1, 1 running)"
    assert notes_of(load_runs("s", small.uri)) == ["s: 3 further runs of the same cells skipped"]


def test_foreign_and_half_made_runs_are_counted(small: Small) -> None:
    small.cell("a")
    client = small.writer.client
    for tags in ({}, {"cell_key": "b"}, {"cell_key": "c", "status": "finished"}):
        client.create_run(small.sweep, run_name="by hand", tags=tags)
    client.log_param(client.create_run(small.sweep, tags={"cell_key": "d"}).info.run_id, "seed", "none")
    client.delete_run(small.cell("e", 1))
    assert small.text() == "90"
    assert notes_of(load_runs("s", small.uri)) == [
        "s: 1 runs without a cell key skipped",
        "s: 3 runs without a complete config skipped",
    ]


def test_recorded_cells_whose_runs_lack_a_key_are_missing(small: Small) -> None:
    for name, text in to_tags("abc").items():
        small.writer.client.set_experiment_tag(small.sweep, name, text)
    small.cell("a")
    small.cell("z", 1, metrics={**DONE, "test/linear_top1": 0.1})  # not listed, though the grid has its values
    small.writer.client.create_run(small.sweep, run_name="without a key", tags={"status": "finished", "role": "cell"})
    assert small.text() == "90"
    table = tables.table("s", small.uri)
    assert "s: 1 runs without a cell key skipped; s: 1 finished, 2 missing, 1 outside" in table.replace("\n\n", "; ")


def test_a_table_opens_the_store_once(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.cell("a")
    opened = []
    monkeypatch.setattr(sources, "MlflowClient", lambda uri: opened.append(uri) or MlflowClient(uri))
    tables.table("s", small.uri)
    assert opened == [small.uri]


def test_a_finished_run_without_results_is_no_missing_number(small: Small) -> None:
    small.cell("a")
    small.cell("b", 1, metrics={"val/x": 0.5})  # its last report is not in the store
    small.cell("c", 2, metrics={})
    assert small.text() == "90 (n=1, 2 incomplete)"
    small.execute("delete from latest_metrics where key = 'test/linear_top1'")  # no run has any: it was not asked for
    assert load_runs("s", small.uri)["status"].tolist() == ["finished", "finished", "incomplete"]


def test_a_run_that_ended_while_its_tag_says_running_is_interrupted(small: Small) -> None:
    small.cell("a", metrics={"val/x": 0.5, "test/linear_top1": 0.9}, status="running")
    killed = small.cell("b", 1, metrics={"val/x": 0.5}, status="running")
    small.writer.client.set_terminated(killed, "KILLED")
    assert small.text() == "interrupted/running"


def test_a_tag_that_somebody_adds_takes_no_parameters_place(small: Small) -> None:
    run = small.cell("a")
    for name, text in (("method.mu", "7"), ("test/linear_top1", "0.123"), ("run_id", "x"), ("epoch", "often")):
        small.writer.client.set_tag(run, name, text)
    (row,) = load_runs("s", small.uri).to_dict("records")
    assert (row["method.mu"], row["test/linear_top1"], row["run_id"]) == (0.0, 0.9, run)
    assert math.isnan(row["epoch"])


@pytest.mark.parametrize("value", ["garbage", "inf", b"\x00"])
def test_a_metric_that_is_no_number_is_counted_and_is_no_result(value: object, small: Small) -> None:
    small.cell("a", metrics={**DONE, "val/x": 0.25})
    small.cell("b", 1, metrics={**DONE, "val/y": 1.0})
    small.execute("update latest_metrics set value = ? where key = 'test/linear_top1' and value = 0.9", value)
    small.execute("update metrics set value = ? where key = 'val/x' and value = 0.25", value)
    runs = load_runs("s", small.uri)
    assert "test/linear_top1" not in runs
    assert notes_of(runs) == ["s: 2 metrics that are no numbers skipped"]
    assert load_histories("s", ["val/x"], small.uri)["cell_key"].tolist() == ["b"]


def test_infinities_and_nan_are_told_apart_and_are_no_results(small: Small) -> None:
    for seed, value in enumerate((math.inf, -math.inf, math.nan)):
        small.cell(str(seed), seed, metrics={**DONE, "test/linear_top1": value})
    values = load_runs("s", small.uri)["test/linear_top1"].tolist()
    assert values[:2] == [math.inf, -math.inf]
    assert math.isnan(values[2])
    assert "nan" not in small.text() + tables.table("s", small.uri)
    assert "inf" not in small.text()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "delete from experiment_tags",
            r"experiment s of .* is no sweep: it has no tag sweep.axes, sweep.goals; launch",
        ),
        ("delete from experiment_tags where key = 'sweep.goals'", "it has no tag sweep.goals; launch its file again"),
        ("update experiment_tags set value = '[1' where key = 'sweep.grid'", r"its tag sweep\.grid is damaged \("),
        (
            "update experiments set lifecycle_stage = 'deleted'",
            r"sweep s has been deleted in .*; `mlflow experiments rest",
        ),
        ("update runs set lifecycle_stage = 'deleted'", r"sweep s has no runs in .* yet; python sweeps/s\.py fills it"),
        ("drop table metrics", None),
        ("drop table params", r"the store .* cannot be read \(.*no such table: params\); see that it is up"),
    ],
)
def test_an_experiment_that_is_no_sweep_says_why(statement: str, message: str | None, small: Small) -> None:
    small.cell("a")
    small.execute(statement)
    if message is None:  # runs need no curves
        assert len(load_runs("s", small.uri)) == 1
        message = "no such table: metrics"
    with pytest.raises(NothingToShow, match=message) as caught:
        load_histories("s", ["val/x"], small.uri)
    assert "\n" not in str(caught.value)


def test_an_experiment_without_sweep_tags_is_not_listed(small: Small) -> None:
    small.writer.client.create_experiment("theirs", tags={"team": "vision"})
    assert [*sweeps_in(small.uri)] == ["s"]


def test_a_locked_file_is_there(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.cell("a")
    connect = sqlite3.connect
    monkeypatch.setattr(sources.sqlite3, "connect", lambda *words, **named: connect(*words, **named, timeout=0.05))
    with closing(connect(small.file)) as other:
        other.execute("begin exclusive")
        with pytest.raises(NothingToShow, match=r"mlflow\.db cannot be read \(database is locked\); try again"):
            load_runs("s", small.uri)
        other.rollback()
    assert len(load_runs("s", small.uri)) == 1


@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_a_damaged_file_is_no_missing_file(kept: float, small: Small) -> None:
    small.cell("a")
    whole = small.file.read_bytes()
    cut = whole[: int(kept * len(whole))] if kept < 1 else whole[:100] + b"\xa5" * (len(whole) - 100)
    small.file.write_bytes(cut)
    said = f"the store {small.file} cannot be read (" if kept else f"{small.file} is no MLflow store; name another"
    for read in (sweeps_in, partial(load_runs, "s")):
        with pytest.raises(NothingToShow, match=re.escape(said)):
            read(small.uri)
    assert small.file.read_bytes() == cut


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "http://me:secret@127.0.0.1:9",
            r"the store http://127\.0\.0\.1:9 cannot be read \(.*refused\); see that it is",
        ),
        ("nosuch://x", r"the store nosuch://x cannot be read"),
    ],
)
def test_a_server_that_is_away_is_named_without_its_password(
    uri: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(NothingToShow, match=message) as caught:
        load_runs("s", uri)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
