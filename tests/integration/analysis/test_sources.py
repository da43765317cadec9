"""Imperfect stores: every flaw is counted in a note or is an error of one line, and no number is wrong.

Run: python -m pytest tests/integration/analysis/test_sources.py
"""

import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from stores import StoreWriter

from analysis import tables
from analysis.runs import NothingToShow, load_histories, load_runs, sweeps_in
from analysis.select.selection import current
from analysis.store import sources
from analysis.store.cell_list import to_tags
from analysis.table.cells import Quantity, cell_of

GOALS = [{"metric": "val/x"}]
DONE = {"val/x": 0.5, "test/linear_top1": 0.9}


class Small:
    """A store of this test's own with one sweep over method.p and method.mu."""

    def __init__(self, file: Path) -> None:
        self.file, self.uri = file, f"sqlite:///{file}"
        self.writer = StoreWriter(self.uri)
        present = {"goals": GOALS, "grid": [{"method.p": [1], "method.mu": [0.0]}], "seeds": [0, 1, 2]}
        self.sweep = self.writer.sweep("s", axes=["method.p", "method.mu"], present=present)

    def cell(self, key: str, seed: int = 0, metrics: dict[str, float] = DONE, **tags: str) -> str:
        params = {"method.p": 1, "method.mu": 0.0, "seed": seed}
        return self.writer.run(self.sweep, params, metrics, cell_key=key, **tags)

    def execute(self, statement: str, *values: object) -> None:
        """Change the store behind MLflow's back."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute(statement, values)

    def text(self) -> str:
        """The one cell of a table, in percent."""
        found = current(load_runs("s", self.uri))
        return str(cell_of(found, Quantity(label="test", metric="test/linear_top1", factor=100, spec=".0f")))

    def notes(self) -> list[str]:
        return load_runs("s", self.uri).attrs["notes"]


@pytest.fixture
def small(tmp_path: Path, template: bytes) -> Small:
    (tmp_path / "mlflow.db").write_bytes(template)
    return Small(tmp_path / "mlflow.db")


def test_a_table_opens_the_store_once(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.cell("a")
    opened = []
    monkeypatch.setattr(sources, "MlflowClient", lambda uri: opened.append(uri) or MlflowClient(uri))
    tables.table("s", small.uri)
    assert opened == [small.uri]


def test_two_runs_of_a_cell_are_not_two_seeds(small: Small) -> None:
    for accuracy, status in ((0.1, "interrupted"), (0.8, "finished"), (0.2, "running")):
        small.cell("a", metrics={**DONE, "test/linear_top1": accuracy}, status=status)
    small.cell("b", 1, metrics={**DONE, "test/linear_top1": 0.3}, status="diverged")
    small.cell("b", 1, metrics={**DONE, "test/linear_top1": 0.4}, status="running")
    assert small.text() == "80 (n=1, 1 running)"
    assert small.notes() == ["s: 3 further runs of the same cells skipped"]


def test_foreign_and_incomplete_runs_are_counted_and_listed_cells_without_a_run_are_missing(small: Small) -> None:
    small.cell("a")
    small.cell("z", 1, metrics={**DONE, "test/linear_top1": 0.1})  # not listed, though the grid has its values
    client = small.writer.client
    for tags in ({}, {"cell_key": "b"}, {"cell_key": "c", "status": "finished"}):
        client.create_run(small.sweep, run_name="by hand", tags=tags)
    client.delete_run(small.cell("e", 1))
    for name, text in to_tags("abc").items():
        client.set_experiment_tag(small.sweep, name, text)
    assert small.text() == "90"
    assert tables.table("s", small.uri).split("\n\n")[-3:] == [
        "s: 1 runs without a cell key skipped",
        "s: 2 runs without a complete config skipped",
        "s: 1 finished, 2 missing, 1 outside the present grid left out",
    ]


def test_a_finished_run_without_results_is_incomplete(small: Small) -> None:
    small.cell("a")
    small.cell("b", 1, metrics={"val/x": 0.5})  # its last report is not in the store
    small.cell("c", 2, metrics={})
    assert small.text() == "90 (n=1, 2 incomplete)"
    small.execute("delete from latest_metrics where key = 'test/linear_top1'")  # no run has any: it was not asked for
    assert load_runs("s", small.uri)["status"].tolist() == ["finished", "finished", "incomplete"]


def test_infinities_and_nan_are_not_results(small: Small) -> None:
    for seed, value in enumerate((math.inf, -math.inf, math.nan)):
        small.cell(str(seed), seed, metrics={**DONE, "test/linear_top1": value})
    values = load_runs("s", small.uri)["test/linear_top1"].tolist()
    assert [*map(str, values)] == ["inf", "-inf", "nan"]
    assert not re.search("nan|inf", small.text() + tables.table("s", small.uri))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("delete from experiment_tags", r"experiment s of .* is no sweep: it has no tag sweep.axes, sweep.goals; lau"),
        ("update experiments set lifecycle_stage = 'deleted'", r"has been deleted in .*; `mlflow experiments restore"),
        ("update runs set lifecycle_stage = 'deleted'", r"sweep s has no runs in .* yet; python sweeps/s\.py fills it"),
        ("drop table params", r"is no MLflow store \(it lacks params\); name another store"),
    ],
)
def test_an_unreadable_sweep_is_an_error_of_one_line(statement: str, message: str, small: Small) -> None:
    small.cell("a")
    small.execute(statement)
    with pytest.raises(NothingToShow, match=message) as caught:
        load_histories("s", ["val/x"], small.uri)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_damaged_file_is_not_missing_and_stays_as_it_is(kept: float, small: Small) -> None:
    whole = small.file.read_bytes()
    small.file.write_bytes(whole[: int(kept * len(whole))])
    message = f"the store {small.file} cannot be read (" if kept else f"{small.file} is no MLflow store (it lacks"
    with pytest.raises(NothingToShow, match=re.escape(message)):
        sweeps_in(small.uri)
    assert len(small.file.read_bytes()) == int(kept * len(whole))


def test_an_unreachable_server_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    message = r"the store http://127\.0\.0\.1:9 cannot be read \(.*refused\); see that"
    with pytest.raises(NothingToShow, match=message) as caught:
        load_runs("s", "http://me:secret@127.0.0.1:9")
    assert not re.search("secret|\n", str(caught.value))


def test_tags_do_not_replace_parameters_or_the_end_of_a_run(small: Small) -> None:
    run = small.cell("a", status="running")
    small.writer.client.set_terminated(run, "KILLED")
    for name, text in (("method.mu", "7"), ("test/linear_top1", "0.123"), ("run_id", "x")):
        small.writer.client.set_tag(run, name, text)
    (row,) = load_runs("s", small.uri).to_dict("records")
    expected = {"method.mu": 0.0, "test/linear_top1": 0.9, "run_id": run, "status": "interrupted"}
    assert row.items() >= expected.items()
