"""Exports: equal frames and tables as from the store, equal bytes each time, detection of damage.

Run: python -m pytest tests/integration/analysis/test_export.py
"""

import csv
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pandas.testing import assert_frame_equal
from stores import START, StoreWriter

from analysis import tables
from analysis.__main__ import main
from analysis.runs import NothingToShow, has_runs, load_histories, load_history, load_runs, sweeps_in
from analysis.select.selection import current
from analysis.store.cell_list import recorded_cells, to_tags
from analysis.store.export import write_export
from analysis.store.mlflow_sql import SCHEMA

ODD = 'odd, "sweep" ±'
GOALS = [{"metric": "val/probe_top1"}]
CURVE = [0.1 + 0.2, math.nan, math.inf, -math.inf, 5e-324]


@pytest.fixture(scope="module")
def odd(template: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a store with values that are hard to write down, and a recorded list of cells."""
    file = tmp_path_factory.mktemp("odd") / "mlflow.db"
    file.write_bytes(template)
    uri = f"sqlite:///{file}"
    writer = StoreWriter(uri)
    sweep = writer.sweep(ODD, axes=["method", "method.mu"], present={"goals": GOALS, "seeds": [0]})
    metrics = {"val/probe_top1": CURVE, "test/linear_top1": 0.9, "test/nan": math.nan, "system/cpu": [1.0, 2.0]}
    some = {"method.mu": 0.5, "method.rectified": True, "method.depth": 3, "note": 'ümlaut, "quote"\nline', "empty": ""}
    first = writer.run(sweep, some, metrics, cell_key="a", reason="±, \"'")
    writer.client.log_metric(first, "val/probe_top1", 0.25, timestamp=START, step=1)  # earlier: counts for nothing
    writer.client.log_metric(first, "val/probe_top1", 0.75, timestamp=2 * START, step=2)
    writer.run(sweep, {"method": "lejepa", "method.lamb": "1e-05"}, {"val/probe_top1": [0.5]}, cell_key="b")
    writer.run(sweep, {"method.mu": "-1", "big": "9" * 30}, cell_key="c", status="running")
    writer.run(sweep, {"method.rectified": False, "seed": -1}, metrics, cell_key="d")
    writer.client.delete_run(writer.run(sweep, some, metrics, cell_key="e"))
    writer.client.create_run(sweep, run_name="somebody's")
    for name, text in to_tags([*(f"{number:016x}" for number in range(600)), "a"]).items():
        writer.client.set_experiment_tag(sweep, name, text)
    return uri


@pytest.fixture(scope="module")
def export(odd: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_export(ODD, odd, str(folder))
    return folder


def test_the_frames_of_an_export_are_those_of_the_store(odd: str, export: Path) -> None:
    here, there = (load_runs(ODD, store, stale=True) for store in (odd, str(export)))
    assert_frame_equal(there, here)
    assert there.attrs["notes"] == here.attrs["notes"] == [f"{ODD}: 1 runs without a cell key skipped"]
    assert here["cell_key"].tolist() == ["a", "b", "c", "d"]
    assert not any(name.startswith("system/") for name in here)
    assert len(recorded_cells(sweeps_in(str(export))[ODD].tags)) == 601
    for store in (odd, str(export)):
        asked_for = (
            load_runs(ODD, store),
            current(load_runs(ODD, store, stale=True)),
            load_histories(ODD, store=store),
        )
        assert [{*frame["cell_key"]} for frame in asked_for] == [{"a"}] * 3
        assert {*load_histories(ODD, store=store, stale=True)["cell_key"]} == {"a", "b", "d"}
    curves = load_histories(ODD, ["val/probe_top1", "system/cpu"], odd)
    assert_frame_equal(load_histories(ODD, ["val/probe_top1", "system/cpu"], str(export)), curves)
    of_a = curves[curves["cell_key"] == "a"]
    assert of_a["metric"].tolist() == ["val/probe_top1"] * 5 + ["system/cpu"] * 2
    assert of_a["epoch"].tolist() == [1, 2, 3, 4, 5, 1, 2]
    assert of_a["value"].tolist() == [0.1 + 0.2, 0.75, math.inf, -math.inf, 5e-324, 1.0, 2.0]
    assert_frame_equal(load_history(ODD, "no/such", str(export)), load_history(ODD, "no/such", odd))


def test_sql_and_the_client_read_the_same_and_change_nothing(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads tables of a later MLflow, too, where the SQL fails."""

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("no such column")

    file = Path(odd.removeprefix("sqlite:///"))
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("analysis.store.records.all_pages", pytest.fail)
        runs, curves = load_runs(ODD, odd, stale=True), load_histories(ODD, store=odd, stale=True)
    assert file.read_bytes() == before
    with closing(sqlite3.connect(file)) as connection:
        version = connection.execute("select version_num from alembic_version").fetchall()
    assert version == [(SCHEMA,)], "the queries are written for another version of MLflow"
    monkeypatch.setattr("analysis.store.records.active_rows", fail)
    monkeypatch.setattr("analysis.store.sources.metric_rows", fail)
    monkeypatch.setattr("analysis.store.records._PAGE", 1)  # so that there is a second page
    assert_frame_equal(load_runs(ODD, odd, stale=True), runs)
    assert_frame_equal(load_histories(ODD, store=odd, stale=True), curves)


def test_the_files_are_exact_and_the_same_store_gives_the_same_bytes(odd: str, export: Path, tmp_path: Path) -> None:
    files = [*map(Path, write_export(ODD, odd, str(tmp_path)))]
    with files[1].open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert (row["note"], row["reason"], row["empty"]) == ('ümlaut, "quote"\nline', "±, \"'", "")
    with files[3].open(newline="") as stream:
        values = [float(line["value"]) for line in csv.DictReader(stream)]
    assert {*values} >= {0.1 + 0.2, math.inf, -math.inf, 5e-324, 0.75}
    for file in files:
        assert file.read_bytes() == (export / file.relative_to(tmp_path)).read_bytes()


def test_all_sweeps_or_some_are_exported_and_read_like_a_store(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["export", "--store", store, "--output", str(tmp_path)]) == 0
    filled = {name for name, item in sweeps_in(store).items() if has_runs(item, store)}  # one is planned and has no run
    found = sweeps_in(str(tmp_path))
    assert found.keys() == filled
    assert found["seeds"].tags == sweeps_in(store)["seeds"].tags
    for name in ("demo_two_workers", "fair", "front"):
        assert tables.table(name, str(tmp_path)) == tables.table(name, store)
    monkeypatch.chdir(tmp_path)
    assert len(load_runs("seeds", ".")) == 4
    capsys.readouterr()
    assert main(["export", "fairly", "--store", store, "--output", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: 'fairly' is no sweep of the store; did you mean 'fair'?")
    assert not (tmp_path / "none").exists()


def test_damaged_exports_are_errors_of_one_line(store: str, tmp_path: Path) -> None:
    with pytest.raises(NothingToShow, match=r"none is no folder of exports; python -m analysis export .* writes one"):
        load_runs("seeds", str(tmp_path / "none"))
    runs, *_, about = map(Path, write_export("seeds", store, str(tmp_path)))
    with pytest.raises(NothingToShow, match=r"sead is not in .*, which has seeds; python -m analysis export sead "):
        load_runs("sead", str(tmp_path))
    runs.write_bytes(runs.read_bytes()[:-9])  # an incomplete copy
    with pytest.raises(NothingToShow, match=r"runs\.parquet is not what its sweep\.json says.* export seeds"):
        load_runs("seeds", str(tmp_path))
    about.write_text("{")
    with pytest.raises(NothingToShow, match=r"sweep\.json is damaged"):
        sweeps_in(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["export", "seeds", "--output", "s3://me:hunter2@b/x"], "s3://b/x must hold no credentials"),
        (["demo_lejepa", "--store", "s3://b/x?secret_key=hunter2"], "s3://b/x must hold no credentials; leave them"),
        (["demo_lejepa", "--store", "ftp://me:hunter2@b/x"], "the store ftp://b/x cannot be read"),
    ],
)
def test_unusable_urls_are_errors_of_one_line(
    words: list[str], reason: str, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *([] if "--store" in words else ["--store", store])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reason in line
    assert "hunter2" not in line
