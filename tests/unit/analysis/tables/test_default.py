"""The default table of a sweep, tables as data, and table files next to a sweep's file.

Run: python -m pytest tests/unit/analysis/tables/test_default.py
"""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from latex import check_latex
from made_runs import as_search, made_runs

from analysis import tables
from analysis.__main__ import main
from analysis.select.front import front_of
from analysis.select.metrics import UnknownMetric
from analysis.select.selection import choices
from analysis.table.build import TableSpec
from analysis.table.layout import FinishedTable, layout_of
from analysis.table.render import render
from analysis.table.summary import progress_note
from analysis.tables import default, trials

TWO, SIX = {"optim.lr": [0.001, 0.01]}, {"method.lamb": [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]}
THREE, METHODS = {"views.num_global": [2, 4, 8]}, [{"method": ["vicreg"]}, {"method": ["lejepa"], "method.lamb": [0.1]}]
MAIN = ["val probe top-1 ↑", "probe top-1 ↑", "linear top-1 ↑", "kNN top-1 ↑"]


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Accuracies that grow with lamb, from 0.9 on, +- 0.01 over three seeds; a loss with an unknown term."""
    top1 = 0.9 + 0.1 * float(config.get("method.lamb", 0)) + 0.01 * (config["seed"] - 1)
    names = ("val/probe_top1", "test/probe_top1", "test/linear_top1", "test/knn_top1", "test/projector_top1")
    names += ("test/linear_projector_top1", "test/knn20_top1", "test/knn_projector_top1")
    return dict.fromkeys(names, top1) | {"train/loss": 2.0, "train/redundancy": 0.25, "train/lr": 0.1}


def finished(runs: pd.DataFrame, module: Any = default, **options: Any) -> FinishedTable:
    build = partial(module.build, **options)
    return TableSpec(name="study", scale="", title="", sweeps=("study",), within=(), build=build).finish(runs)


def texts(table: FinishedTable) -> dict[Any, list[str]]:
    values = ([cell.text for cell in row] for row in layout_of(table.frame).cells)
    return dict(zip(table.frame.index, values, strict=True))


def width(table: FinishedTable) -> int:
    return max(map(len, (line for line in render(table).splitlines() if line.startswith("|"))))


def test_one_axis_gives_rows_and_the_metrics_that_fit_into_a_terminal() -> None:
    table = finished(made_runs({"method.lamb": [0.01, 0.5]}, measure))
    assert table.title == "study: results; top-1 in %"
    assert (table.frame.index.names, table.frame.columns.tolist()) == (["λ"], MAIN[:3])
    assert texts(table) == {0.01: ["90.10 ± 1.00"] * 3, 0.5: ["95.00 ± 1.00"] * 3}
    assert [[cell.bold for cell in row] for row in table.frame.to_numpy()] == [[False] * 3, [True] * 3]
    further = (
        "train/loss, train/redundancy, test/knn_top1, test/projector_top1, test/linear_projector_top1, test/knn20_top1"
    )
    assert f"further metrics, by --metrics NAME,NAME: {further}" in table.about_runs
    check_latex(render(table, "latex"))


@pytest.mark.parametrize(
    ("grid", "seeds", "index", "columns"),
    [
        ({**SIX, **TWO}, (0, 1, 2), ["", "λ"], ["lr"]),
        ({**THREE, **SIX}, (0, 1, 2), ["λ"], ["global views"]),  # the other way round it is too wide
        ({**THREE, **SIX}, (0,), ["", "λ"], ["global views"]),
        ({**SIX, "optim.lr": [1, 2, 3, 4, 5]}, (0, 1), ["λ", "lr"], [""]),  # too wide both ways
        ({**TWO, **THREE, "method.lamb": [0.1, 0.2]}, (0,), ["", "lr", "global views"], ["λ"]),
        (METHODS, (0, 1), ["method", "λ"], [""]),  # VICReg has no lamb
        ({}, (0, 1), ["method"], [""]),
    ],
)
def test_axes_give_rows_columns_and_levels(grid: Any, seeds: Any, index: list[str], columns: list[str]) -> None:
    table = finished(made_runs(grid, measure, seeds=seeds))
    assert (table.frame.index.names, table.frame.columns.names) == (index, columns)
    assert width(table) <= 80
    blocks = [] if index[0] else [*dict.fromkeys(label[0] for label in table.frame.index)]
    assert blocks == MAIN[: len(blocks)]
    assert index[0] or len(blocks) >= 3
    assert ("probe top-1 (%)" in table.title) == (columns != [""] and not blocks)


@pytest.mark.parametrize("grid", [{"method.lamb": [0.1, 0.2]}, {"method.lamb": [0.1, 0.2], **TWO}, {**THREE, **SIX}])
def test_references_are_rows_or_notes(grid: dict[str, Any]) -> None:
    runs = made_runs(grid, measure)
    init = runs.iloc[:1].assign(role="reference", epochs=0, epoch=0, cell_key="init", **{"test/linear_top1": 0.5})
    table = finished(pd.concat([runs, init], ignore_index=True))
    if len(grid) == 1:
        assert texts(table)["random init"] == ["-", "-", "50.00 (n=1)"]  # its online probe is untrained
    else:
        assert table.notes[0].startswith("random init: linear top-1 50.00, kNN")


def test_the_protocol_that_ranks_is_the_first_on_test() -> None:
    runs = made_runs({"method.lamb": [0.1]}, lambda config: measure(config) | {"val/linear_top1": 0.5})
    runs["sweep.goals"] = json.dumps([{"metric": "val/linear_top1"}])
    assert finished(runs).frame.columns.tolist()[:3] == ["val linear top-1 ↑", "linear top-1 ↑", "probe top-1 ↑"]


def test_a_search_is_a_ranking_with_the_seeds_of_its_winner_averaged() -> None:
    def proposed(config: dict[str, Any]) -> Any:
        return measure(config) if config["seed"] == 0 or config["method.lamb"] == 0.5 else None

    runs = as_search(made_runs({"method.lamb": [0.1, 0.5]}, proposed), ["method.lamb"])
    table = finished(runs)
    assert table.frame.columns.tolist() == ["λ", "val probe top-1", "probe top-1", "linear top-1"]
    assert texts(table) == {1: ["0.5", "94.00", *["95.00 ± 1.00 (n=3)"] * 2], 2: ["0.1", *["90.00"] * 3]}
    single = finished(runs, trials)
    assert [[str(cell) for cell in row[:3]] for row in single.frame.to_numpy()] == [
        ["0.5", "2", "0.9600"],
        ["0.5", "1", "0.9500"],
        ["0.5", "0", "0.9400"],
        ["0.1", "0", "0.9000"],
    ]


def seeded(config: dict[str, Any]) -> dict[str, Any] | str | None:
    """Two seeds per point, a third for the best one that needs at most 31 GB; lamb 0.1 is good with seed 0 alone."""
    lamb, seed = config["method.lamb"], config["seed"]
    if seed == 2 and lamb != 0.2:
        return None
    if lamb == 0.3 and seed == 1:
        return "diverged"
    score = {0.1: 0.9 if seed == 0 else -0.6}.get(lamb, lamb + seed / 100)
    return {"val/probe_top1": score, "test/probe_top1": score / 2, "train/peak_memory_gb": 10 + 100 * lamb + seed}


def test_a_search_with_several_seeds_per_trial_ranks_by_their_mean_and_marks_what_breaks_a_constraint() -> None:
    runs = as_search(made_runs({"method.lamb": [0.1, 0.2, 0.3, 0.4, 0.6]}, seeded), ["method.lamb"])
    runs = runs.assign(**{"sweep.seeds_per_trial": "2"})
    table = default.build(runs)
    assert [*table.index] == [1, 2, 3, 4, "diverged"]
    assert [*table["λ"].map(str)] == ["0.6", "0.4", "0.2", "0.1", "0.3"]
    assert str(table["val probe top-1"].iloc[3]) == "15.00 ± 106.07 (n=2)"
    limit = {"metric": "train/peak_memory_gb", "sense": "<=", "bound": 31}
    kept = runs.assign(**{"sweep.constraints": json.dumps([limit])})
    table = default.build(kept)
    assert [*table.index] == [1, 2, "infeasible", "infeasible", "diverged"]
    assert [*table["λ"].map(str)] == ["0.2", "0.1", "0.6", "0.4", "0.3"]
    assert str(table["val probe top-1"].iloc[2]) == "60.50 ± 0.71 (n=2)", "the numbers of infeasible points are shown"
    assert str(table["probe top-1"].iloc[0]) == "10.50 ± 0.50 (n=3)", "test means have further seeds"
    (choice,) = choices(kept)
    assert [*choice.winner["method.lamb"]] == [0.2] * 3
    counts = "study: 5 finished, 1 diverged, 5 infeasible"
    assert progress_note(kept) == f"{counts}; chosen on val, by the mean over 2 seeds, from 5 candidates"
    none = runs.assign(**{"sweep.constraints": json.dumps([limit | {"bound": 1}])})
    assert "no feasible candidate: none keeps train/peak_memory_gb <= 1" in progress_note(none)
    assert [*default.build(none).index] == ["infeasible"] * 4 + ["diverged"]


def test_a_setting_is_left_out_where_its_conditions_do_not_hold() -> None:
    found = {"val/probe_top1": 0.5, "test/probe_top1": 0.5}
    runs = as_search(
        made_runs(
            {"method": ["lejepa", "vicreg"], "method.lamb": [0.1], "optim.lr": [0.1]}, lambda _: found, seeds=[0]
        ),
        ["method", "method.lamb", "optim.lr"],
    )
    when = {"method.lamb": {"method": ["lejepa"]}, "optim.lr": {"method.lamb": [0.1]}}
    table = default.build(runs.assign(**{"sweep.when": json.dumps(when)}))
    assert [[str(cell) for cell in row[:3]] for row in table.to_numpy()] == [
        ["lejepa", "0.1", "0.1"],
        ["vicreg", "-", "-"],
    ]


def test_the_pareto_set_has_the_means_of_points_and_marks_each_of_their_seeds() -> None:
    def two(config: dict[str, Any]) -> dict[str, Any]:
        seed = config["seed"]
        return {"val/probe_top1": {0.1: 0.9 - seed, 0.2: 0.5, 0.3: 0.6}[config["method.lamb"]], "val/l1_sparsity": 0.5}

    goals = json.dumps([{"metric": "val/probe_top1"}, {"metric": "val/l1_sparsity", "direction": "min"}])
    runs = as_search(made_runs({"method.lamb": [0.1, 0.2, 0.3]}, two, seeds=[0, 1]), ["method.lamb"])
    front = front_of(runs.assign(**{"sweep.seeds_per_trial": "2", "sweep.goals": goals}))
    assert sorted(front.points[:, 0]) == pytest.approx([0.4, 0.5, 0.6])
    assert front.keys == {*runs["cell_key"][runs["method.lamb"] == 0.3]}
    assert len(front.keys) == 2


def test_a_table_as_data_has_the_rows_columns_metrics_and_labels_of_the_sweep() -> None:
    runs = made_runs({**TWO, **THREE, "method.lamb": [0.1]}, measure)
    chosen = {"rows": ["views.num_global"], "columns": ["optim.lr"], "metrics": ["test/knn_top1", "train/redundancy"]}
    labels = {"views.num_global": "V", "train/redundancy": "redundancy", "optim.lr": "rate"}
    table = finished(runs.assign(**{"sweep.table": json.dumps(chosen | {"labels": labels})}))
    assert (table.frame.index.names, table.frame.columns.names) == (["", "V"], ["rate"])
    assert texts(table)[("redundancy", 2)] == ["0.25 ± 0.00"] * 2
    one = finished(runs.assign(**{"sweep.table": json.dumps({"rows": ["optim.lr"], "columns": ["method.lamb"]})}))
    assert one.frame.index.names == ["", "global views", "lr"]  # never an average over an axis


def test_without_a_test_split_the_accuracies_are_those_on_val() -> None:
    table = finished(made_runs({"method.lamb": [0.1]}, lambda _: {"val/probe_top1": 0.8, "val/linear_top1": 0.9}))
    assert texts(table) == {0.1: ["80.00 ± 0.00", "90.00 ± 0.00"]}
    assert table.frame.columns.tolist() == ["val probe top-1 ↑", "val linear top-1 ↑"]


def test_without_labels_there_is_no_accuracy_but_those_of_transfer_sets() -> None:
    def measured(found: dict[str, float]) -> list[str]:
        runs = made_runs({"method.lamb": [0.1]}, lambda _: found, goal="train/loss")
        return finished(runs).frame.columns.tolist()

    assert measured({"train/loss": 2.0, "val/effective_rank": 9.0}) == ["train loss ↑", "val effective rank"]
    probed = {"train/loss": 2.0, "val/effective_rank": 9.0, "transfer/dishes/linear_top1": 0.5}
    assert measured(probed) == ["train loss ↑", "transfer dishes/linear top-1 ↑"]


def test_metrics_by_name_may_be_of_any_method_and_unknown_ones_are_one_line() -> None:
    runs = made_runs({"method.lamb": [0.1]}, measure)
    found = texts(finished(runs, metrics=["train/redundancy", "test/knn20_top1"]))[0.1]
    assert found == ["0.25 ± 0.00", "91.00 ± 1.00"]
    with pytest.raises(
        UnknownMetric, match=r"no run of study has .*'train/redundency'; did you mean 'train/redundancy'"
    ):
        finished(runs, trials, metrics=["train/redundency"])


def test_a_sweep_with_scales_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"sweep.name": "mine", "sweep.scale": "mini"}
    monkeypatch.setattr(tables, "sweeps_in", lambda _: {"mine_mini": SimpleNamespace(tags=tags)})
    for name in ("mine", "mine_mini"):
        found = tables.find_table(name)
        assert (found.sweeps, found.label) == (("mine_mini",), "mine-mini")
    assert tables.find_table("mine", trials=True).label == "mine_trials-mini"


TABLE_FILE = """
from analysis.table.pivot import PivotTable

TITLE = "Mine"
TABLE = PivotTable(rows={"method.p": "my p"})
"""


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of a table file next to that of the sweep `seeds`, which says that it had one."""
    known = {
        "seeds": {"sweep.kind": "grid", "sweep.file": f"{tmp_path}/seeds.py", "sweep.table_file": "seeds_table.py"}
    }
    experiments = {name: SimpleNamespace(tags=tags) for name, tags in known.items()}
    monkeypatch.setattr(tables, "sweeps_in", lambda _: experiments)
    return tmp_path / "seeds_table.py"


def test_a_table_file_next_to_the_sweeps_builds_its_table(beside: Path, store: str) -> None:
    beside.write_text(TABLE_FILE)
    lines = tables.table("seeds", store).splitlines()
    assert (lines[0], lines[2].split("|")[1].strip()) == ("**Mine**", "my p")
    assert tables.find_table("seeds", store, trials=True).title == "seeds: individual runs"


@pytest.mark.usefixtures("beside")
def test_without_its_table_file_a_sweep_has_the_default_table_with_a_note(store: str) -> None:
    assert "seeds_table.py, which builds this sweep's table, is not on this machine" in tables.table("seeds", store)


def test_a_wrong_table_file_is_one_line(beside: Path, store: str, capsys: pytest.CaptureFixture[str]) -> None:
    beside.write_text("TABEL = 1\n")
    assert main(["seeds", "--store", store]) == 2
    assert capsys.readouterr().err.startswith(f"error: {beside} must define TITLE, and TABLE or build(runs); ")


def test_individual_runs_and_metrics_of_a_sweep_with_a_table(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo_rectified_lpjepa", "--trials", "--store", store]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[2].startswith("| rank     | method.p | method.mu | val/probe_top1 | test/probe_top1 |")
    assert [row.split("|")[1].strip() for row in rows[4:9]] == ["1", "2", "3", "diverged", "running"]
    assert main(["demo_rectified_lpjepa", "--metrics", "test/nonzero_fraction", "--store", store]) == 0
    assert capsys.readouterr().out.startswith("**demo_rectified_lpjepa: nonzero fraction**\n\n| p \\ μ |")
    with pytest.raises(SystemExit):
        main(["report", "seeds", "--trials", "--store", store])
    assert "--trials and --metrics are of the table of one sweep" in capsys.readouterr().err


def test_individual_runs_without_accuracies_have_the_effective_rank() -> None:
    runs = made_runs(SIX, lambda config: {"val/effective_rank": 5.0, "train/loss": config["method.lamb"]})
    assert [name for name in trials.build(runs) if "/" in name] == ["val/probe_top1", "val/effective_rank"]
