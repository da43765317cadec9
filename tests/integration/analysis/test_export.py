"""An export says what the store says: equal frames, equal tables, the same bytes each time; damage is found."""

import csv
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from pandas.testing import assert_frame_equal
from stores import START, StoreWriter

from analysis import tables
from analysis.__main__ import main
from analysis.figures import write_figure
from analysis.html_report import write_report
from analysis.select.selection import current
from analysis.store.cell_list import recorded_cells, to_tags
from analysis.store.export import write_export
from analysis.store.records import read_records
from analysis.store.runs import NothingToShow, has_runs, load_histories, load_history, load_runs, notes_of, sweeps_in
from analysis.store.sources import file_name
from analysis.table.provenance import write_table

ODD = 'odd, "sweep" ±'
GOALS = [{"metric": "val/probe_top1"}]
CURVE = [0.1 + 0.2, math.nan, math.inf, -math.inf, 5e-324]


@pytest.fixture(scope="module")
def odd(template: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a store with one sweep that has every value which is hard to write down."""
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
    return uri


@pytest.fixture(scope="module")
def export(odd: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_export(ODD, odd, folder)
    return folder


def test_the_frames_of_an_export_are_those_of_the_store(odd: str, export: Path) -> None:
    here, there = load_runs(ODD, odd), load_runs(ODD, str(export))
    assert_frame_equal(there, here)
    assert notes_of(there) == notes_of(here) == [f"{ODD}: 1 runs without a cell key skipped"]
    assert here["cell_key"].tolist() == ["a", "b", "c", "d"]
    assert not any(name.startswith("system/") for name in here)
    curves = load_histories(ODD, ["val/probe_top1", "system/cpu"], odd)
    assert_frame_equal(load_histories(ODD, ["val/probe_top1", "system/cpu"], str(export)), curves)
    assert_frame_equal(load_histories(ODD, store=str(export)), load_histories(ODD, store=odd))
    of_a = curves[curves["cell_key"] == "a"]
    assert of_a["metric"].tolist() == ["val/probe_top1"] * 5 + ["system/cpu"] * 2
    assert of_a["epoch"].tolist() == [1, 2, 3, 4, 5, 1, 2]
    assert of_a["value"].tolist() == [0.1 + 0.2, 0.75, math.inf, -math.inf, 5e-324, 1.0, 2.0]
    assert curves["value"].isna().sum() == 1  # of d, whose second epoch nobody logged again
    assert_frame_equal(load_history(ODD, "no/such", str(export)), load_history(ODD, "no/such", odd))


def test_the_list_of_cells_is_part_of_an_export(template: bytes, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(template)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    writer = StoreWriter(uri)
    grid = {"method.mu": [0.0, 1.0]}
    sweep = writer.sweep("s", axes=["method.mu"], present={"goals": GOALS, "seeds": [0], "grid": grid})
    for key, mu in (("a", 0.0), ("b", 1.0)):
        writer.run(sweep, {"method.mu": mu}, {"val/probe_top1": 0.5, "test/linear_top1": 0.5}, cell_key=key)
    write_export("s", uri, tmp_path / "before")
    cells = [*(f"{number:016x}" for number in range(600)), "a"]
    for name, text in to_tags(cells).items():
        writer.client.set_experiment_tag(sweep, name, text)
    write_export("s", uri, tmp_path / "after")
    assert recorded_cells(sweeps_in(str(tmp_path / "before"))["s"].tags) is None
    assert recorded_cells(sweeps_in(str(tmp_path / "after"))["s"].tags) == tuple(cells)
    found = {place: load_runs("s", place) for place in (uri, str(tmp_path / "after"), str(tmp_path / "before"))}
    assert [current(runs)["cell_key"].tolist() for runs in found.values()] == [["a"], ["a"], ["a", "b"]]
    assert tables.table("s", str(tmp_path / "after")) == tables.table("s", uri)
    assert "sweep.cells" not in (tmp_path / "after/s/runs.csv").read_text()


def test_plain_sql_and_the_client_give_the_same_curves(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["system/cpu", "val/probe_top1"]
    by_sql = load_histories(ODD, names, odd), load_histories(ODD, store=odd)
    monkeypatch.setattr("analysis.store.curves.sqlite_file", lambda _: None)
    for there, here in zip((load_histories(ODD, names, odd), load_histories(ODD, store=odd)), by_sql, strict=True):
        assert_frame_equal(there, here)


def test_the_csv_holds_every_number_and_text_exactly(odd: str, export: Path) -> None:
    (record, *_) = read_records(MlflowClient(odd), MlflowClient(odd).get_experiment_by_name(ODD).experiment_id, odd)
    (folder,) = export.iterdir()
    with (folder / "runs.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert row["note"] == record.params["note"] == 'ümlaut, "quote"\nline'
    assert (row["reason"], row["empty"], row["method.mu"], row["method.depth"]) == ("±, \"'", "", "0.5", "3")
    assert "sweep.goals" not in row
    with (folder / "history.csv").open(newline="") as stream:
        values = [line["value"] for line in csv.DictReader(stream) if line["run_id"] == record.run_id]
    assert {*map(float, values)} >= {0.1 + 0.2, math.inf, -math.inf, 5e-324, 0.75}


def test_no_name_leads_out_of_the_folder(template: bytes, tmp_path: Path) -> None:
    file, to = tmp_path / "mlflow.db", tmp_path / "out" / "in"
    file.write_bytes(template)
    uri, writer = f"sqlite:///{file}", StoreWriter(f"sqlite:///{file}")
    for name in ("a/b", ".."):
        sweep = writer.sweep(name, axes=["method.mu"], present={"goals": GOALS, "seeds": [0]})
        for mu in (0.5, 1.0):
            metrics = {"val/probe_top1": [0.5], "test/linear_top1": mu / 2, "test/nonzero_fraction": mu / 2}
            writer.run(sweep, {"method.mu": mu, "method": "x", "seed": 0}, metrics, cell_key=f"{name} {mu}")
        (*_, about) = write_export(name, uri, to)
        assert about.parent == to / file_name(name)
        assert len(load_runs(name, str(to))) == 2
        found = tables.find_table(name, uri)
        files = write_table(found.finish(found.load(uri)), found.label, to, store=uri, ui="")
        files += write_figure("accuracy_sparsity", uri, to, sweep=name)
        assert {one.parent for one in [*files, write_report(name, uri, to)]} == {to}
    assert [*(tmp_path / "out").iterdir()] == [to]
    odd = ["a/b", "..", ".", "a%2Fb", "v1.5 x"]
    assert [*map(file_name, odd)] == ["a%2Fb", "%2E%2E", "%2E", "a%252Fb", "v1.5 x"]


def test_the_same_store_gives_the_same_bytes_and_leaves_nothing_else(odd: str, export: Path, tmp_path: Path) -> None:
    files = write_export(ODD, odd, tmp_path)
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_export(ODD, odd, tmp_path)] == before
    assert before == [(export / file.relative_to(tmp_path)).read_bytes() for file in files]
    assert sorted(file.name for file in files[0].parent.iterdir()) == sorted(file.name for file in files)
    about = json.loads(files[-1].read_text())
    assert (about["sweep"], about["runs"], about["points"]) == (ODD, 4, len(load_histories(ODD, store=odd)))
    assert json.loads(about["tags"]["sweep.goals"]) == GOALS


@pytest.mark.parametrize("name", ["demo_rectified_lpjepa", "demo_lejepa", "demo_two_workers", "fair", "front", "seeds"])
def test_every_table_can_be_built_from_exports(name: str, store: str, tmp_path: Path) -> None:
    for sweep in tables.find_table(name, store).sweeps:
        write_export(sweep, store, tmp_path)
    for format in ("md", "latex", "html", "csv"):
        assert tables.table(name, str(tmp_path), format) == tables.table(name, store, format)


def test_exports_are_listed_like_a_store(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sweep in ("seeds", "demo_lejepa"):
        write_export(sweep, store, tmp_path)
    found = sweeps_in(str(tmp_path))
    assert [*found] == ["demo_lejepa", "seeds"]
    assert found["seeds"].experiment_id == sweeps_in(store)["seeds"].experiment_id
    assert found["seeds"].tags == sweeps_in(store)["seeds"].tags
    assert has_runs(found["seeds"], str(tmp_path))
    assert main(["--store", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "in store" in line] == ["demo_lejepa", "seeds"]
    monkeypatch.chdir(tmp_path)
    assert len(load_runs("seeds", ".")) == 4


def test_several_sweeps_or_all_with_runs_are_written_at_once(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "seeds", "fair", "--store", store, "--output", str(tmp_path / "two")]) == 0
    assert [*sweeps_in(str(tmp_path / "two"))] == ["fair", "seeds"]
    assert main(["export", "--store", store, "--output", str(tmp_path / "all")]) == 0
    filled = sorted(name for name, item in sweeps_in(store).items() if has_runs(item, store))
    assert sorted(sweeps_in(str(tmp_path / "all"))) == filled
    assert len(filled) < len(sweeps_in(store))  # one is planned and has no run
    capsys.readouterr()
    assert main(["export", "seeds", "fairly", "--store", store, "--output", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.endswith("; did you mean 'fair'?\n")
    assert not (tmp_path / "none").exists()


def test_all_sweeps_of_one_scale_are_written(papers: str, tmp_path: Path) -> None:
    assert main(["export", "--scale", "mini", "--store", papers, "--output", str(tmp_path)]) == 0
    assert {item.tags["sweep.scale"] for item in sweeps_in(str(tmp_path)).values()} == {"mini"}
    assert main(["export", "--scale", "lab", "--store", papers, "--output", str(tmp_path)]) == 1


def test_what_is_no_export_or_is_damaged_is_answered_in_one_line(store: str, tmp_path: Path) -> None:
    with pytest.raises(NothingToShow, match=r"none is no folder of exports; python -m analysis export .* writes one"):
        load_runs("seeds", str(tmp_path / "none"))
    runs, *_, about = write_export("seeds", store, tmp_path)
    with pytest.raises(NothingToShow, match=r"sweep sead is not in the exports of .*; it has seeds"):
        load_runs("sead", str(tmp_path))
    runs.write_bytes(runs.read_bytes()[:-9])  # a copy that was cut off
    with pytest.raises(NothingToShow, match=r"runs\.parquet is not what its sweep\.json says.* export seeds"):
        load_runs("seeds", str(tmp_path))
    about.write_text("{")
    with pytest.raises(NothingToShow, match=r"sweep\.json is damaged"):
        sweeps_in(str(tmp_path))


def test_an_export_that_is_cut_off_leaves_the_one_before(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_export("seeds", store, tmp_path)
    before = load_runs("seeds", str(tmp_path))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        write_export("seeds", store, tmp_path)
    assert_frame_equal(load_runs("seeds", str(tmp_path)), before)
    assert len([*(tmp_path / "seeds").iterdir()]) == 5


def test_exports_by_url_that_cannot_be_used_are_answered_in_one_line(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [
        (["export", "seeds", "--store", store, "--output", "s3://me:hunter2@b/x"], "s3://b/x must hold no credentials"),
        (["demo_lejepa", "--store", "s3://b/x?secret_key=hunter2"], "s3://b/x must hold no credentials; leave them"),
        (["export", "seeds", "--store", store, "--output", "s3:///x"], "Missing bucket name"),
    ]
    for words, reason in bad:
        assert main(words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert reason in line
        assert "hunter2" not in line
    with pytest.raises(SystemExit):
        main(["demo_lejepa", "--store", store, "--output", "file:///folder"])
    assert "only export writes to a URL" in capsys.readouterr().err
