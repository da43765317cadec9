"""Tables, notes and command line on the small store of tests/stores.py; expected numbers are worked out by hand.

Run: python -m pytest tests/unit/analysis/test_analysis.py
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_runs import as_search, made_runs

from analysis import tables
from analysis.__main__ import main
from analysis.select.objectives import goals_of
from analysis.store.frames import typed
from analysis.store.runs import load_runs, store_uri
from analysis.table.cells import Quantity
from analysis.table.ranking import ranked
from analysis.table.summary import progress_note
from analysis.tables import trials


def built(name: str, store: str) -> pd.DataFrame:
    found = tables.find_table(name, store)
    return found.build(found.load(store))


def texts(cells: pd.Series, spec: str = ".1f") -> list[str]:
    return [cell.text(spec) for cell in cells]


def test_runs_have_typed_parameters_last_metrics_and_tags(store: str) -> None:
    runs = load_runs("demo_lejepa", store).set_index("cell_key")
    best = runs.loc["l1"]
    assert (best["method.lamb"], best["test/linear_top1"]) == (0.02, 0.983)
    assert runs.loc[runs["role"] == "cell", "method.num_slices"].tolist() == [256, 1024, 512, 1024, 512, 256]
    assert (runs["method.num_slices"].dtype, runs["epochs"].dtype) == ("Int64", "int64")  # the reference has no slices
    assert (best["status"], best["role"], best["workers"]) == ("finished", "cell", 1)
    assert runs.loc["l5", "reason"] == "OutOfMemoryError"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (["1", "-2"], [1, -2]),
        (["1", "1e-05"], [1.0, 1e-5]),
        (["True", "False"], [True, False]),
        (["gn", "1"], ["gn", "1"]),
        (["0.5", "inf"], [0.5, math.inf]),
    ],
)
def test_a_column_has_a_type_only_if_every_text_has_it(column: list[str], values: list[object]) -> None:
    found = typed(pd.Series(column)).tolist()
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_a_grid_has_numbers_for_finished_cells_and_states_for_the_others(store: str) -> None:
    table = built("demo_rectified_lpjepa", store)
    assert table.columns.tolist() == [-1.0, 0.0, 0.5]
    top1 = table.loc["encoder top-1 (%) ↑"]
    assert texts(top1.loc[1.0]) == ["diverged", "97.1", "97.7"]  # 0.9712 and 0.9765; not 0.11 of the old epochs
    assert texts(top1.loc[2.0]) == ["93.0", "running", "missing"]  # 0.9301; the last was deleted
    assert texts(table.loc[("non-zero, measured", 1.0)], ".3f") == ["diverged", "0.612", "0.810"]
    assert texts(table.loc[("non-zero, theory", 2.0)], ".3f") == ["0.159", "running", "missing"]
    assert tables.table("demo_rectified_lpjepa", store).splitlines()[-1] == (
        "demo_rectified_lpjepa: 3 finished, 1 diverged (loss is nan at step 7), 1 running, 1 missing, "
        "1 outside the present grid left out, 1 of another configuration left out (they differ in epochs)"
    )


def test_seeds_give_mean_std_and_n(store: str) -> None:
    table = tables.find_table("demo_rectified_lpjepa").build(load_runs("seeds", store))
    both, half = table.loc["encoder top-1 (%) ↑", 0.0]
    assert both.mean == pytest.approx(92.0)
    assert both.std == pytest.approx(2 * math.sqrt(2))  # deviations -2 and 2: sqrt((4 + 4) / (2 - 1))
    assert texts([both, half]) == ["92.0 ± 2.8 (n=2)", "80.0 (n=1, 1 diverged)"]
    assert table.loc[("non-zero, theory", 1), 0.0].text(".3f") == "0.500"  # a formula has no spread over seeds


@pytest.mark.parametrize(("name", "end"), [("demo_rectified_lpjepa", "6 missing"), ("demo_lejepa", "no cell yet")])
def test_a_sweep_without_cells_has_a_table_without_numbers(name: str, end: str, store: str) -> None:
    runs = load_runs(name, store).assign(role="reference", status="running")
    for format in ("md", "latex", "html", "csv"):
        assert "0.9" not in tables.find_table(name).finish(runs).render(format)
    assert tables.find_table(name).finish(runs).render().endswith(end)


def test_a_ranking_has_ties_then_unfinished_trials_then_references(store: str) -> None:
    table = built("demo_lejepa", store)
    assert table.index.tolist() == [1, 2, 2, 4, "collapsed", "failed", "random init"]  # .98, .95, .95, .90
    lambs = [0.02, 0.05, 0.3, 0.2, 0.001, 0.1]  # equal ones by cell key: l2, l3
    assert [float(lamb) for lamb in table["lamb"]][:6] == lambs
    assert texts(table["test linear"]) == ["98.3", "99.0", "96.0", "91.0", "-", "-", "86.1"]
    assert texts(table["val probe"])[3:] == ["90.0", "-", "-", "-"]
    assert str(table["lamb"].iloc[-1]) == "-"  # an untrained encoder has no settings


@pytest.mark.parametrize(
    ("tag", "labels", "note"),
    [
        (["zero", "one", "init", "again"], ["lamb=0", "lamb=1", "random init", "random init seed=1"], ""),
        (["zero", "one", "init"], ["lamb=0", "lamb=1", "random init"], ", 1 former reference left out"),
        (None, ["lamb=0", "lamb=1", "random init", "random init seed=1"], ""),
    ],
)
def test_references_are_those_that_the_sweep_lists(tag: list[str] | None, labels: list[str], note: str) -> None:
    names = ["lamb=0", "lamb=1", "epochs=0", "epochs=0 seed=1", "lamb=0.1"]
    runs = pd.DataFrame(
        {
            **{"cell_key": ["zero", "one", "init", "again", "cell"], "run_name": names, "epochs": [8, 8, 0, 0, 8]},
            **{"seed": [0, 0, 0, 1, 0], "role": ["reference"] * 4 + ["cell"], "status": "finished", "reason": ""},
            **{"start_time": range(5), "run_id": [*"abcde"], "base": "{}", "val/probe_top1": 0.5},
            **{"sweep": "s", "sweep.goals": '[{"metric": "val/probe_top1"}]', "test/x": [0.1, 0.2, 0.3, 0.4, 0.5]},
        }
    )
    if tag is not None:
        runs["sweep.references"] = json.dumps(tag)
    table = ranked(runs, [Quantity(label="x", metric="test/x")])
    assert table.index.tolist() == [1, *labels]
    assert [cell.mean for cell in table["x"]] == [0.5, *[0.1, 0.2, 0.3, 0.4][: len(labels)]]
    assert progress_note(runs) == f"s: 1 finished{note}"


def test_a_fair_ablation_has_the_best_candidate_on_val_of_each_point_over_its_seeds(store: str) -> None:
    table = built("fair", store)
    assert table.index.names == ["method.p", "method.mu"]
    assert table.index.tolist() == [(1, 0.0), (2, 0.0), (4, 1.0)]
    assert [str(lr) for lr in table["optim.lr"]] == ["0.2", "0.1", "-"]  # .90 beats .80; of two .50, b1 before b2
    assert texts(table["val/probe_top1"]) == ["0.9", "0.5", "failed/running"]
    assert texts(table["test/linear_top1"], ".3f") == [
        "0.620 ± 0.028 (n=2, 1 running)",  # 0.60 and 0.64: deviations 0.02, so 0.02 * sqrt(2)
        "0.400",
        "failed/running",
    ]
    assert table["n"].tolist() == [2, 1, 0]
    assert table["candidates"].tolist() == ["4 (1 diverged, 1 pruned at 1)", "2", "2 (1 failed, 1 running)"]
    assert tables.table("fair", store).splitlines()[-1] == (
        "fair: 6 finished, 1 diverged (loss is nan), 1 failed (OutOfMemoryError), 1 pruned, 2 running, "
        "2 outside the present grid left out; chosen on val from 2 to 4 candidates each"
    )
    grid = tables.find_table("demo_rectified_lpjepa").build(load_runs("fair", store)).loc["encoder top-1 (%) ↑"]
    assert [texts(grid.loc[p], ".0f") for p in (1, 2, 4)] == [
        ["62 ± 3 (n=2, 1 running)", "-"],
        ["40", "-"],
        ["-", "failed/running"],
    ]


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


def study(**columns: object) -> pd.DataFrame:
    """A search of three candidates with seed 0, the second of which has run with seed 1 as well."""
    found = {(0.1, 0): (1.0, 0.5, 0.1), (0.4, 0): (1.5, 0.7, 0.2), (0.9, 0): (3.0, 0.6, 0.3), (0.4, 1): (9.0, 0.9, 0.4)}

    def measure(config: dict[str, Any]) -> dict[str, float] | None:
        values = found.get((config["method.lamb"], config["seed"]))
        return values and dict(zip(("train/loss", "val/x", "test/x"), values, strict=True))

    runs = made_runs({"method.lamb": [0.1, 0.4, 0.9]}, measure, seeds=(0, 1), goal="val/x")
    return as_search(runs, ["method.lamb"]).assign(**columns)


def test_a_search_with_seeds_averages_the_test_metrics_of_its_winner() -> None:
    names = {"lamb": "method.lamb", "val": "val/x", "test": "test/x"}
    table = ranked(study(), [Quantity(label=label, metric=metric) for label, metric in names.items()])
    assert table.index.tolist() == [1, 2, 3]
    assert texts(table["lamb"]) == ["0.4", "0.9", "0.1"]
    assert texts(table["val"], ".2f") == ["0.70", "0.60", "0.50"]
    assert texts(table["test"], ".2f") == ["0.30 ± 0.14 (n=2)", "0.30", "0.10"]  # of 0.2 and 0.4
    assert progress_note(study()) == "study: 4 finished; chosen on val from 3 candidates"


def test_selection_without_labels_ranks_by_loss_over_a_power_of_lamb() -> None:
    goal = {"metric": "train/loss", "direction": "min", "over": "method.lamb", "power": 0.5}
    runs = study(**{"sweep.goals": json.dumps([goal])})
    (found,) = goals_of(runs)
    ratios = {lamb: loss / lamb**0.5 for lamb, loss in ((0.1, 1.0), (0.4, 1.5), (0.9, 3.0))}  # 3.162, 2.372, 3.162
    own = runs[runs["seed"] == 0]
    assert dict(zip(own["method.lamb"], found.scores(own), strict=True)) == pytest.approx(ratios)
    assert ranked(runs, [Quantity(label="lamb", metric="method.lamb")])["lamb"].iloc[0].mean == 0.4
    assert math.isnan(found.scores(study(**{"method.lamb": 0.0}))[0])
    assert "chosen by train/loss / method.lamb^0.5 from 3" in progress_note(runs)


def test_a_grid_without_a_table_shows_means_over_seeds_then_its_references(store: str) -> None:
    table = built("seeds", store)
    assert table.columns.tolist()[:2] == ["val/probe_top1", "test/linear_top1"]
    assert [cell.text(".2f") for cell in table["test/linear_top1"]] == ["0.92 ± 0.03 (n=2)", "0.80 (n=1, 1 diverged)"]
    assert tables.table("seeds", store).startswith("**seeds: results**")
    runs = load_runs("seeds", store)
    runs["role"] = ["cell", "cell", "cell", "reference"]
    runs["epochs"] = [3, 3, 3, 0]
    assert trials.build(runs).index.tolist() == [(1, 0.0), (2, 0.0), ("random init (diverged)", "")]


def test_listing_has_the_tables_and_sweeps_of_the_store(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", store]) == 0
    lines = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    listed = dict(line[:2] for line in lines if len(line) == 3)
    present = ["demo_lejepa", "demo_rectified_lpjepa", "demo_two_workers", "fair", "front", "seeds"]
    assert [name for name, state in listed.items() if state == "in store"] == present
    assert listed.keys() == {*present, *tables.table_names()}
    assert (listed["lejepa_views"], listed["lejepa_sigreg_time"]) == ("no runs", "recorded")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("seed", 2, "error: 'seed' is neither a table nor a sweep of the store; did you mean 'seeds'?"),
        ("somebody_elses", 2, "error: 'somebody_elses' is neither a table nor a sweep"),
        ("planned", 1, "error: sweep planned has no runs in sqlite:"),
    ],
)
def test_an_unknown_or_empty_table_is_an_error_of_one_line(
    name: str, code: int, message: str, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--store", store]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(message)


def test_a_missing_or_foreign_store_is_not_created_or_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.db").write_text("not a database " * 100)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for name, message in (
        ("text.db", "file is not a database"),
        ("none.db", "python sweeps/demo_lejepa.py creates one"),
    ):
        assert main(["demo_lejepa", "--store", f"sqlite:///{tmp_path / name}"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert main(["--store", f"sqlite:///{tmp_path / 'none.db'}"]) == 0  # the list needs no store
    assert "no runs" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("JEPA_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert store_uri() == f"sqlite:///{tmp_path}/results/mlflow.db"
    monkeypatch.setenv("JEPA_RESULTS", "/data/r")
    assert store_uri() == "sqlite:////data/r/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri() == "http://127.0.0.1:5000"
