"""Tables from a store: the runs are written in conftest.py, the expected numbers worked out here by hand."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from stores import StoreWriter

from analysis import tables
from analysis.__main__ import main
from analysis.select.compared import cells
from analysis.select.objectives import goals_of
from analysis.select.selection import current
from analysis.store.cell_list import to_tags
from analysis.store.runs import NothingToShow, load_history, load_runs, notes_of, store_uri, typed
from analysis.table.cells import Quantity
from analysis.table.pivot import pivot
from analysis.table.ranking import ranked
from analysis.table.summary import progress_note
from analysis.tables import trials

ROOT = Path(__file__).resolve().parents[3]


def built(name: str, store: str) -> pd.DataFrame:
    found = tables.find_table(name, store)
    return found.build(found.load(store))


def test_runs_have_typed_parameters_last_metrics_and_tags(store: str) -> None:
    runs = load_runs("demo_lejepa", store).set_index("cell_key")
    best = runs.loc["l1"]
    assert best["method.lamb"] == 0.02
    assert runs.loc[runs["role"] == "cell", "method.num_slices"].tolist() == [256, 1024, 512, 1024, 512, 256]
    assert runs["method.num_slices"].dtype == "Int64"  # the reference has none
    assert runs["epochs"].dtype == "int64"
    assert best["test/linear_top1"] == 0.983
    assert (best["status"], best["role"], best["workers"]) == ("finished", "cell", 1)
    assert runs.loc["l5", "reason"] == "OutOfMemoryError"
    assert runs.loc["l1", "start_time"] > runs.loc["l3", "start_time"]


def test_deleted_and_foreign_runs_are_left_out_and_foreign_ones_counted(store: str) -> None:
    runs = load_runs("demo_rectified_lpjepa", store)
    assert {*runs["cell_key"]} == {"old", "r10", "r105", "r1-1", "r20", "r2-1", "r40"}
    assert notes_of(runs) == ["demo_rectified_lpjepa: 1 runs without a cell key skipped"]


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "-2"], [1, -2]),
        (["1", "1e-05"], [1.0, 1e-5]),
        (["True", "False"], [True, False]),
        (["gn", "1"], ["gn", "1"]),
        (["", ""], ["", ""]),
        (["0.5", "inf"], [0.5, math.inf]),
    ],
)
def test_a_column_is_a_number_only_where_every_text_is(texts: list[str], values: list[object]) -> None:
    found = typed(pd.Series(texts)).tolist()
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_history_has_one_value_per_epoch_and_the_last_one_logged_wins(store: str) -> None:
    curves = load_history("demo_rectified_lpjepa", "val/probe_top1", store).set_index("cell_key")
    assert curves.loc["r105", ["epoch", "value"]].to_numpy().tolist() == [[1, 0.5], [2, 0.7], [3, 0.9765]]
    assert curves.loc["r20", "value"].tolist() == [0.6, 0.8]


def test_rectified_grid_shows_numbers_only_for_finished_cells(store: str) -> None:
    table = built("demo_rectified_lpjepa", store)
    assert table.columns.tolist() == [-1.0, 0.0, 0.5]
    texts = table.map(lambda cell: cell.text(".1f")).loc["encoder top-1 (%) ↑"]
    assert texts.loc[1.0].tolist() == ["diverged", "97.1", "97.7"]  # 0.9712 and 0.9765; not 0.11 of the old epochs
    assert texts.loc[2.0].tolist() == ["93.0", "running", "missing"]  # 0.9301; the last was deleted
    fractions = table.map(lambda cell: cell.text(".3f"))
    assert fractions.loc[("non-zero, measured", 1.0)].tolist() == ["diverged", "0.612", "0.810"]
    assert fractions.loc[("non-zero, theory", 2.0)].tolist() == ["0.159", "running", "missing"]
    assert table.loc[("projector top-1 (%) ↑", 2.0), -1.0].mean == pytest.approx(88.55)


def test_the_note_counts_states_with_reasons_and_names_what_was_left_out(store: str) -> None:
    note = tables.table("demo_rectified_lpjepa", store).splitlines()[-1]
    assert note == (
        "demo_rectified_lpjepa: 3 finished, 1 diverged (loss is nan at step 7), 1 running, 1 missing, "
        "1 outside the present grid left out, 1 of another configuration left out (they differ in epochs)"
    )


@pytest.mark.parametrize(
    ("listed", "left"),
    [
        ({"method.depth": [2, 1], "data.flip": [False], "optim.lr": [1, "1e-05"]}, ["a", "b"]),
        ({"optim.lr": [1e-5]}, ["a"]),
        ({"method.depth": ["gn"]}, ["c"]),
        ({"data.flip": [0, 1]}, []),
        ({"method.never": [1]}, []),
        ({}, ["a", "b", "c"]),
    ],
)
def test_a_value_is_in_the_grid_as_a_number_or_as_a_word(listed: dict[str, list[object]], left: list[str]) -> None:
    runs = pd.DataFrame(
        {
            **{"sweep.grid": json.dumps(listed), "role": "cell", "base": "{}", "run_id": ["a", "b", "c"]},
            **{"start_time": 1, "method.depth": ["1", "2.0", "gn"], "optim.lr": [1e-5, 1.0, 2.0]},
            "data.flip": [False, False, True],
        }
    )
    assert current(runs)["run_id"].tolist() == left


def test_two_seeds_give_mean_std_and_n(store: str) -> None:
    table = tables.find_table("demo_rectified_lpjepa").build(load_runs("seeds", store))
    both, half = table.loc["encoder top-1 (%) ↑", 0.0]
    assert both.mean == pytest.approx(92.0)
    assert both.std == pytest.approx(2 * math.sqrt(2))  # deviations -2 and 2: sqrt((4 + 4) / (2 - 1))
    assert both.text(".1f") == "92.0 ± 2.8 (n=2)"
    assert half.text(".1f") == "80.0 (n=1, 1 diverged)"
    assert table.loc[("non-zero, theory", 1), 0.0].text(".3f") == "0.500"  # a formula has no spread over seeds


def test_an_axis_the_table_has_no_place_for_becomes_rows_instead_of_being_averaged() -> None:
    runs = pd.DataFrame(
        {
            "sweep.axes": '["method.p", "method.mu", "optim.lr"]',
            **{"role": "cell", "status": "finished", "base": "{}", "run_id": ["a", "b"], "start_time": [1, 2]},
            **{"method.p": 1.0, "method.mu": 0.0, "optim.lr": [0.1, 0.2], "test/x": [0.5, 0.7], "seed": 0},
        }
    )
    x = Quantity(label="x", metric="test/x")
    table = pivot(cells(runs), rows={"method.p": "p"}, columns={"method.mu": "mu"}, quantities=[x])
    assert table[0.0].map(float).to_dict() == {(0.1, 1.0): 0.5, (0.2, 1.0): 0.7}


@pytest.mark.parametrize(("name", "told"), [("demo_rectified_lpjepa", "6 missing"), ("demo_lejepa", "no cell yet")])
def test_a_sweep_whose_first_cell_has_not_begun_has_a_table_without_numbers(name: str, told: str, store: str) -> None:
    runs = load_runs(name, store).assign(role="reference", status="running")
    for format in ("md", "latex", "html", "csv"):
        assert "0.9" not in tables.find_table(name).render(runs, format)
    assert tables.find_table(name).render(runs).endswith(told)


def test_after_a_change_of_the_base_every_listed_cell_is_missing(store: str) -> None:
    base = {"epochs": "7", "method": "rectified_lpjepa"}
    tags = {"sweep.base": json.dumps(base)} | to_tags([f"{number:016x}" for number in range(6)])
    runs = load_runs("demo_rectified_lpjepa", store).assign(**tags)
    table = tables.find_table("demo_rectified_lpjepa").build(runs)
    assert {*table.loc["encoder top-1 (%) ↑"].map(lambda cell: cell.text(".1f")).to_numpy().flat} == {"missing"}
    assert {*cells(runs)["epochs"]} == {7}
    assert ": 6 missing, " in progress_note(runs)


def test_lejepa_ranks_by_val_with_ties_then_unfinished_then_random_init(store: str) -> None:
    table = built("demo_lejepa", store)
    assert table.index.tolist() == [1, 2, 2, 4, "collapsed", "failed", "random init"]  # .98, .95, .95, .90
    assert [float(lamb) for lamb in table["lamb"]][:6] == [
        0.02,
        0.05,
        0.3,
        0.2,
        0.001,
        0.1,
    ]  # equal ones by cell key: l2, l3
    assert [cell.text(".1f") for cell in table["test linear"]] == ["98.3", "99.0", "96.0", "91.0", "-", "-", "86.1"]
    assert [cell.text(".1f") for cell in table["val probe"]][3:] == ["90.0", "-", "-", "-"]
    assert str(table["lamb"].iloc[-1]) == "-"  # settings of an untrained encoder say nothing


@pytest.mark.parametrize(
    ("tag", "labels", "note"),
    [
        (["zero", "one", "init", "again"], ["lamb=0", "lamb=1", "random init", "random init seed=1"], ""),
        (["zero", "one", "init"], ["lamb=0", "lamb=1", "random init"], ", 1 former reference left out"),
        ([], [], ", 4 former references left out"),
        (None, ["lamb=0", "lamb=1", "random init", "random init seed=1"], ""),
    ],
)
def test_references_are_those_that_the_sweep_lists_each_by_its_name(
    tag: list[str] | None, labels: list[str], note: str
) -> None:
    names = ["lamb=0", "lamb=1", "epochs=0", "epochs=0 seed=1", "lamb=0.1"]
    runs = pd.DataFrame(
        {
            **{"cell_key": ["zero", "one", "init", "again", "cell"], "run_name": names, "epochs": [8, 8, 0, 0, 8]},
            **{"seed": [0, 0, 0, 1, 0], "role": ["reference"] * 4 + ["cell"], "status": "finished", "reason": ""},
            **{"start_time": range(5), "run_id": [*"abcde"], "base": "{}", "val/probe_top1": 0.5},
            **{"sweep": "s", "sweep.objective": "val/probe_top1", "test/x": [0.1, 0.2, 0.3, 0.4, 0.5]},
        }
    )
    if tag is not None:
        runs["sweep.references"] = json.dumps(tag)
    table = ranked(runs, [Quantity(label="x", metric="test/x")])
    assert table.index.tolist() == [1, *labels]
    assert [cell.mean for cell in table["x"]] == [0.5, *[0.1, 0.2, 0.3, 0.4][: len(labels)]]
    assert progress_note(runs) == f"s: 1 finished{note}"


def test_a_fair_ablation_shows_the_winner_on_val_of_each_point_over_its_seeds(store: str) -> None:
    table = built("fair", store)
    assert table.index.names == ["method.p", "method.mu"]
    assert table.index.tolist() == [(1, 0.0), (2, 0.0), (4, 1.0)]
    assert [str(lr) for lr in table["optim.lr"]] == ["0.2", "0.1", "-"]  # .90 beats .80; of two .50, b1 before b2
    assert [cell.text(".4f") for cell in table["val/probe_top1"]] == ["0.9000", "0.5000", "failed/running"]
    assert [cell.text(".3f") for cell in table["test/linear_top1"]] == [
        "0.620 ± 0.028 (n=2, 1 running)",  # 0.60 and 0.64: deviations 0.02, so 0.02 * sqrt(2)
        "0.400",
        "failed/running",
    ]
    assert table["n"].tolist() == [2, 1, 0]
    assert table["candidates"].tolist() == ["4 (1 diverged, 1 pruned at 1)", "2", "2 (1 failed, 1 running)"]
    note = tables.table("fair", store).splitlines()[-1]
    assert note.startswith(
        "fair: 6 finished, 1 diverged (loss is nan), 1 failed (OutOfMemoryError), 1 pruned, 2 running"
    )
    assert note.endswith("2 outside the present grid left out; chosen on val from 2 to 4 candidates each")


def test_a_grid_of_a_fair_ablation_holds_its_winners(store: str) -> None:
    table = tables.find_table("demo_rectified_lpjepa").build(load_runs("fair", store))
    texts = table.map(lambda cell: cell.text(".0f")).loc["encoder top-1 (%) ↑"]
    assert texts.loc[1].tolist() == ["62 ± 3 (n=2, 1 running)", "-"]
    assert texts.loc[2].tolist() == ["40", "-"]
    assert texts.loc[4].tolist() == ["-", "failed/running"]


def test_a_pruned_cell_is_shown_with_the_epoch_that_was_its_last_and_never_ranks(store: str) -> None:
    runs = load_runs("fair", store).assign(**{"sweep.searched": "[]", "sweep.kind": "grid"})
    table = ranked(runs, [Quantity(label="val", metric="val/probe_top1"), Quantity(label="lr", metric="optim.lr")])
    assert [label for label in table.index if not isinstance(label, int)] == [
        *("diverged", "failed", "pruned at 1", "running", "running")
    ]
    assert str(table.loc["pruned at 1", "val"]) == "-"
    assert float(table.loc["pruned at 1", "lr"]) == 0.3


def test_several_goals_rank_by_the_first_and_mark_the_pareto_set(store: str) -> None:
    table = built("front", store)
    assert table.index.tolist() == [1, 2, 3, 4, "pruned at 2"]
    assert table.columns.tolist()[:4] == ["method.mu", "Pareto set", "val/probe_top1", "val/nonzero_fraction"]
    assert table["Pareto set"].tolist() == ["*", "*", "*", "", ""]
    # From (0.60, 0.90), the worst of each, the set reaches (.30, .10), (.28, .50), (.10, .60) further:
    # .10 x .10 + .40 x .28 + .10 x .30. Scaled to the set, the middle one lies at (0.9, 0.8), beyond the chord.
    assert tables.table("front", store).splitlines()[-1] == (
        "front: 4 finished, 1 pruned; Pareto set of 3 among 4 finished, hypervolume 0.152 from val/probe_top1 0.6, "
        "val/nonzero_fraction 0.9 (the worst of each), knee at mu=0.5"
    )


def test_the_sweeps_own_run_is_no_foreign_run(store: str) -> None:
    assert len(load_runs("front", store)) == 5
    assert notes_of(load_runs("front", store)) == []


def study(**columns: object) -> pd.DataFrame:
    """A search of three candidates with seed 0, the second of which has run with seed 1 as well."""
    return pd.DataFrame(
        {
            **{"sweep": "s", "sweep.kind": "search", "sweep.axes": '["method.lamb"]', "sweep.seeds": "[0, 1]"},
            **{"sweep.searched": '["method.lamb"]', "sweep.goals": '[{"metric": "val/x"}]', "base": "{}"},
            **{"role": "cell", "status": "finished", "reason": "", "epochs": 8, "seed": [0, 0, 0, 1]},
            **{"cell_key": [*"abcd"], "run_id": [*"abcd"], "start_time": range(4), "method.lamb": [0.1, 0.4, 0.9, 0.4]},
            **{"train/loss": [1.0, 1.5, 3.0, 9.0], "val/x": [0.5, 0.7, 0.6, 0.9], "test/x": [0.1, 0.2, 0.3, 0.4]},
            **columns,
        }
    )


def test_a_search_with_seeds_ranks_its_candidates_and_shows_the_winner_over_its_seeds() -> None:
    table = ranked(
        study(),
        [
            Quantity(label="lamb", metric="method.lamb"),
            Quantity(label="val", metric="val/x"),
            Quantity(label="test", metric="test/x"),
        ],
    )
    assert table.index.tolist() == [1, 2, 3]
    assert [float(lamb) for lamb in table["lamb"]] == [0.4, 0.9, 0.1]
    assert [cell.text(".2f") for cell in table["val"]] == ["0.70", "0.60", "0.50"]
    assert [cell.text(".2f") for cell in table["test"]] == ["0.30 ± 0.14 (n=2)", "0.30", "0.10"]  # of 0.2 and 0.4
    assert progress_note(study()) == "s: 4 finished; chosen on val from 3 candidates"


def test_label_free_ranks_by_the_smallest_loss_over_lamb_to_a_power() -> None:
    goal = {"metric": "train/loss", "direction": "min", "over": "method.lamb", "power": 0.5}
    runs = study(**{"sweep.goals": json.dumps([goal])})
    ratios = [1.0 / 0.1**0.5, 1.5 / 0.4**0.5, 3.0 / 0.9**0.5]  # 3.162, 2.372, 3.162: the smallest is of 0.4
    (found,) = goals_of(runs)
    assert found.name == "train/loss / method.lamb^0.5"
    assert found.scores(runs).tolist()[:3] == pytest.approx(ratios)
    assert ranked(runs, [Quantity(label="lamb", metric="method.lamb")])["lamb"].iloc[0].mean == 0.4
    assert math.isnan(found.scores(study(**{"method.lamb": 0.0}))[0])
    assert "chosen by train/loss / method.lamb^0.5 from 3" in progress_note(runs)


def test_what_decides_no_result_divides_no_sweep(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    writer = StoreWriter(uri)
    present = {"base": {"epochs": "3", "method": "lejepa", "optim.lr": "0.001"}, "goals": [{"metric": "val/x"}]}
    sweep = writer.sweep("s", axes=["method.lamb"], present=present)
    for lamb, protocols in ((0.1, "knn"), (0.2, "knn,sgd")):
        writer.run(sweep, {"method.lamb": lamb, "probe.protocols": protocols}, cell_key=str(lamb))
    writer.run(sweep, {"method.lamb": 0.3, "epochs": 9}, cell_key="longer")  # later, but not what the file says
    assert current(load_runs("s", uri))["method.lamb"].tolist() == [0.1, 0.2]


def test_two_workers_stand_beside_the_same_cell_on_one(store: str) -> None:
    table = built("demo_two_workers", store)
    assert table.columns.tolist() == ["1 worker", "2 workers", "difference"]
    assert [float(cell) for cell in table.loc["test/linear_top1"]] == pytest.approx([0.983, 0.9802, -0.0028])
    assert float(table.loc["train/loss", "difference"]) == pytest.approx(1e-7)
    assert [str(cell) for cell in table.loc["train/sigreg"]] == ["not measured", "not measured", "-"]


def test_a_grid_without_a_table_shows_means_over_seeds_then_its_references(store: str) -> None:
    table = built("seeds", store)
    assert table.columns.tolist()[:2] == ["val/probe_top1", "test/linear_top1"]
    assert [cell.text(".2f") for cell in table["test/linear_top1"]] == ["0.92 ± 0.03 (n=2)", "0.80 (n=1, 1 diverged)"]
    assert tables.table("seeds", store).startswith("**seeds: results**")
    runs = load_runs("seeds", store)
    runs["role"] = ["cell", "cell", "cell", "reference"]
    runs["epochs"] = [3, 3, 3, 0]
    assert trials.build(runs).index.tolist() == [(1, 0.0), (2, 0.0), ("random init (diverged)", "")]


@pytest.mark.parametrize("name", [name for name in tables.table_names() if name.startswith("demo_")])
def test_every_table_of_the_demo_says_what_it_is_and_renders_in_every_format(name: str, store: str) -> None:
    found = tables.find_table(name)
    assert tables.describe_table(name)[0].endswith(".")
    assert found.title
    for format in ("md", "latex", "html", "csv"):
        assert len(tables.table(name, store, format).splitlines()) > 5


def test_listing_says_what_the_store_has(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", store]) == 0
    lines = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    listed = dict(line[:2] for line in lines if len(line) == 3)
    present = ["demo_lejepa", "demo_rectified_lpjepa", "demo_two_workers", "fair", "front", "seeds"]
    assert [name for name, state in listed.items() if state == "in store"] == present
    assert listed.keys() == {*present, *tables.table_names()}
    assert (listed["lejepa_views"], listed["lejepa_sigreg_time"]) == ("no runs", "recorded")
    assert lines[0][2] == tables.describe_table("demo_lejepa")[0]
    assert not any("somebody_elses" in line[0] for line in lines)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        (
            "demo_lejpa",
            2,
            "error: 'demo_lejpa' is neither a table nor a sweep of the store; did you mean 'demo_lejepa'?",
        ),
        ("seed", 2, "error: 'seed' is neither a table nor a sweep of the store; did you mean 'seeds'?"),
        ("somebody_elses", 2, "error: 'somebody_elses' is neither a table nor a sweep"),
        ("trials", 2, "error: 'trials' is neither a table nor a sweep"),
        ("planned", 1, "error: sweep planned has no runs in sqlite:"),
    ],
)
def test_what_cannot_be_shown_is_answered_in_one_line(
    name: str, code: int, message: str, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--store", store]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(message)


def test_reading_without_a_store_says_what_fills_it_and_creates_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JEPA_RESULTS": str(tmp_path / "results")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "analysis", "demo_lejepa"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "python sweeps/demo_lejepa.py" in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert [*tmp_path.rglob("*")] == []


def test_a_file_that_is_no_store_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.db").touch()
    (tmp_path / "text.db").write_text("not a database " * 100)
    for name in ("empty.db", "text.db"):
        before = (tmp_path / name).read_bytes()
        assert main(["demo_lejepa", "--store", f"sqlite:///{tmp_path / name}"]) == 1
        assert (tmp_path / name).read_bytes() == before
    assert main(["--store", f"sqlite:///{tmp_path / 'none.db'}"]) == 0  # the list stands without a store
    assert "no runs" in capsys.readouterr().out
    assert not (tmp_path / "none.db").exists()


def test_the_store_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("JEPA_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert store_uri() == f"sqlite:///{tmp_path}/results/mlflow.db"
    monkeypatch.setenv("JEPA_RESULTS", "/data/r")
    assert store_uri() == "sqlite:////data/r/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri() == "http://127.0.0.1:5000"


def test_a_sweep_that_was_never_run_names_its_command(store: str) -> None:
    with pytest.raises(
        NothingToShow, match=r"sweep lamb_views has no runs in .*; python sweeps/lamb_views.py fills it"
    ):
        load_runs("lamb_views", store)
