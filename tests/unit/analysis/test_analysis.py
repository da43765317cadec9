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
from analysis.runs import store_uri
from analysis.select.objectives import goals_of
from analysis.store.frames import typed
from analysis.store.sources import open_source
from analysis.sweep_list import sweep_lines
from analysis.table.cells import Quantity
from analysis.table.ranking import ranked
from analysis.table.summary import progress_note

NOTEBOOKS = sorted((Path(__file__).parents[3] / "analysis/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_parameters_of_a_notebook_can_be_set(path: Path, results: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    names: dict[str, Any] = {}
    exec("".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"]), names)
    assert names["STORE"] == f"sqlite:///{results}/mlflow.db"


def built(name: str, store: str, **options: Any) -> pd.DataFrame:
    found = tables.find_table(name, store, **options)
    return found.build(found.load(store))


def texts(cells: pd.Series) -> list[str]:
    return [*map(str, cells)]


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
    assert texts(table.loc[("non-zero, measured", 1.0)]) == ["diverged", "0.612", "0.810"]
    assert texts(table.loc[("non-zero, theory", 2.0)]) == ["0.159", "running", "missing"]
    assert tables.table("demo_rectified_lpjepa", store).splitlines()[-1] == (
        "demo_rectified_lpjepa: 3 finished, 1 diverged (loss is nan at step 7), 1 running, 1 missing, "
        "1 outside the present grid left out, 1 of another configuration left out (they differ in epochs)"
    )


def test_a_ranking_has_ties_then_unfinished_trials_then_references(store: str) -> None:
    table = built("demo_lejepa", store)
    assert table.index.tolist() == [1, 2, 2, 4, "collapsed", "failed", "random init"]  # .98, .95, .95, .90
    lambs = [0.02, 0.05, 0.3, 0.2, 0.001, 0.1]  # equal ones by cell key: l2, l3
    assert [lamb.mean for lamb in table["lamb"]][:6] == lambs
    assert texts(table["test linear"]) == ["98.3", "99.0", "96.0", "91.0", "-", "-", "86.1"]
    assert texts(table["val probe"])[3:] == ["90.0", "-", "-", "-"]
    assert str(table["lamb"].iloc[-1]) == "-"  # an untrained encoder has no settings


def test_a_fair_ablation_has_the_best_candidate_on_val_of_each_point_over_its_seeds(store: str) -> None:
    table = built("fair", store)
    assert table.index.names == ["p", "μ"]
    assert table.index.tolist() == [(1, 0.0), (2, 0.0), (4, 1.0)]
    assert [str(lr) for lr in table["lr"]] == ["0.2", "0.1", "-"]  # .90 beats .80; of two .50, b1 before b2
    assert texts(table["linear top-1"]) == [
        "62.00 ± 2.83 (n=2, 1 running)",  # 60 and 64: deviations 2, so 2 * sqrt(2)
        "40.00",
        "failed/running",
    ]
    assert table["n"].tolist() == [2, 1, 0]
    assert table["candidates"].tolist() == ["4 (1 diverged, 1 pruned at 1)", "2", "2 (1 failed, 1 running)"]
    assert tables.table("fair", store).splitlines()[-1] == (
        "fair: 6 finished, 1 diverged (loss is nan), 1 failed (OutOfMemoryError), 1 pruned, 2 running, "
        "2 outside the present grid left out; chosen on val from 2 to 4 candidates each"
    )


def test_several_goals_rank_by_the_first_and_mark_the_pareto_set(store: str) -> None:
    table = built("front", store, trials=True)
    assert table.index.tolist() == [1, 2, 3, 4, "pruned at 2"]
    assert table.columns.tolist()[:4] == ["method.mu", "Pareto set", "val/probe_top1", "val/nonzero_fraction"]
    assert table["Pareto set"].tolist() == ["*", "*", "*", "", ""]
    # From (0.60, 0.90), the worst of each, the set reaches (.30, .10), (.28, .50), (.10, .60) further:
    # .10 x .10 + .40 x .28 + .10 x .30. Scaled to the set, the middle one lies at (0.9, 0.8), beyond the chord.
    assert tables.table("front", store).splitlines()[-1] == (
        "front: 4 finished, 1 pruned; Pareto set of 3 among 4 finished, hypervolume 0.152 from val/probe_top1 0.6, "
        "val/nonzero_fraction 0.9 (the worst of each), knee at mu=0.5"
    )


def test_selection_without_labels_ranks_by_loss_over_a_power_of_lamb() -> None:
    losses = {(0.1, 0): 1.0, (0.4, 0): 1.5, (0.4, 1): 9.0, (0.9, 0): 3.0}  # of a lamb and a seed
    goal = {"metric": "train/loss", "direction": "min", "over": "method.lamb", "power": 0.5}

    def measure(config: dict[str, Any]) -> dict[str, float] | None:
        loss = losses.get((config["method.lamb"], config["seed"]))
        return loss and {"train/loss": loss}

    runs = as_search(made_runs({"method.lamb": [0.1, 0.4, 0.9]}, measure, seeds=(0, 1)), ["method.lamb"])
    runs["sweep.goals"] = json.dumps([goal])
    (found,) = goals_of(runs)
    assert found.scores(runs).tolist() == pytest.approx([loss / lamb**0.5 for (lamb, _), loss in losses.items()])
    assert ranked(runs, [Quantity(label="lamb", metric="method.lamb")])["lamb"].iloc[0].mean == 0.4
    assert "chosen by train/loss / method.lamb^0.5 from 3" in progress_note(runs)


def test_prune_reasons_are_grouped_by_epoch():
    grid = {"method.lamb": [number / 100 for number in range(1, 10)]}
    runs = made_runs(grid, lambda _: {}, seeds=(0,))
    stopped = [f"early stopping at epoch {epoch}: 0.7{n} is not in" for n, epoch in enumerate((9, 3, 3, 27, 3, 3))]
    runs = runs.assign(status=["pruned"] * 7 + ["diverged"] * 2, reason=[*stopped, "by hand", "nan", "nan"])
    assert progress_note(runs) == "study: 2 diverged (nan), 7 pruned at epoch 3 (4), at 9 (1), at 27 (1) (by hand)"


def test_listing_has_the_tables_and_sweeps_of_the_store(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", store]) == 0
    listing, _, sweeps = capsys.readouterr().out.partition("\n\n")
    listed = dict(re.split(r"  +", line)[:2] for line in listing.splitlines())
    present = ["demo_lejepa", "demo_rectified_lpjepa", "demo_two_workers"]
    assert [name for name, state in listed.items() if state == "in store"] == present
    assert [*listed] == tables.table_names()
    assert sweeps.splitlines() == [*sweep_lines(open_source(store)), "", f"store: {store}"]
    assert (listed["lejepa_views"], listed["lejepa_sigreg_time"]) == ("no runs", "recorded")


def test_an_unknown_or_empty_table_is_an_error_of_one_line(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed", "--store", store]) == 2
    line = "error: 'seed' is neither a table nor a sweep of the store; did you mean 'seeds'?"
    assert capsys.readouterr().err.startswith(line)
    assert main(["planned", "--store", store]) == 1
    assert re.match(r"error: sweep planned has no runs in sqlite:[^\n]+\n$", capsys.readouterr().err)


@pytest.mark.parametrize("words", [["figure", "curves", "--sweep"], ["export"]])
def test_a_sweep_is_found_without_its_only_scale(
    words: list[str], papers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "searched", "--store", papers, "--output", str(tmp_path)]) == 0
    assert "searched_mini" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_one_line(
    papers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["lejepa_samples", "--store", papers, "--output", str(tmp_path / "file/tables")]) == 2
    line = f"error: {tmp_path}/file/tables cannot be used (Not a directory); name another folder with --output"
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("JEPA_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert store_uri() == f"sqlite:///{tmp_path}/results/mlflow.db"
    monkeypatch.setenv("JEPA_RESULTS", "/data/r")
    assert store_uri() == "sqlite:////data/r/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri() == "http://127.0.0.1:5000"
