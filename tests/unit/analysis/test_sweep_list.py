"""The list of sweeps: order, counts, hours and best result; its width.

Run: python -m pytest tests/unit/analysis/test_sweep_list.py
"""

import re
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_runs
from paper_store import accuracy_of

from analysis.runs import load_runs
from analysis.store.export import write_export
from analysis.store.sources import open_source
from analysis.sweep_list import best_score, sweep_lines
from sweeps.__main__ import main


def entries(store: str) -> dict[str, list[str]]:
    """Sweep -> its other fields, and the line below it if there is one."""
    found: dict[str, list[str]] = {}
    for line in sweep_lines(open_source(store))[1:]:
        name, *fields = re.split(r"  +", line)
        if name:
            found[name] = fields
        else:
            found[[*found][-1]] += fields
    return found


def test_a_sweep_has_its_cells_hours_latest_time_and_best_mean_over_seeds(papers: str) -> None:
    found = entries(papers)
    best = np.mean([accuracy_of(8, 0.05, seed) - 0.02 for seed in range(3)])
    assert found["lejepa_lambda_views_mini"] == [
        *("42/42", "0.42 CPU", "11-14 22:54", f"{best:.4g} probe_top1", "1 diverged")  # 42 runs of 36 s
    ]
    searched = load_runs("searched_mini", papers)
    winner = searched.loc[searched["status"] == "finished", "val/probe_top1"].max()
    assert found["searched_mini"][-2:] == [f"{winner:.4g} probe_top1", "1 failed, 1 pruned"]
    assert found["searched_mini"][0] == "13/14", "pruned is a result, failed is none"


def test_a_score_without_labels_has_its_divisor() -> None:
    goal = '[{"metric": "train/loss", "direction": "min", "over": "method.lamb", "power": 0.4}]'
    runs = made_runs({"method.lamb": [0.1, 1.0]}, lambda _: {"train/loss": 3.0})
    assert best_score(runs.assign(**{"sweep.goals": goal})) == "3 loss / lamb^0.4"


def test_the_latest_sweep_is_first_and_lines_fit_80_columns(papers: str, store: str) -> None:
    lines = sweep_lines(open_source(papers))
    times = [line.partition("CPU  ")[2][:11] for line in lines[1:] if not line.startswith(" ")]
    assert times == sorted(times, reverse=True)
    assert max(map(len, lines + sweep_lines(open_source(store)))) <= 80


def test_a_store_and_its_export_have_the_same_list(store: str, tmp_path: Path) -> None:
    named = ("seeds", "demo_lejepa", "front")  # the first two of an older store, without a list of cells
    for sweep in named:
        write_export(sweep, store, str(tmp_path))
    ours, exported = entries(store), entries(str(tmp_path))
    assert exported == {sweep: ours[sweep] for sweep in exported}, "also where SQL reads only what is needed"
    assert exported.keys() == {*named}


def test_the_command_names_the_store(
    store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["list", "--store", store]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == sweep_lines(open_source(store))
    assert printed.err == f"store: {store}\n"
    monkeypatch.setenv("JEPA_RESULTS", f"{tmp_path}/none")
    assert [main(["list"]), main(["list", "all"])] == [2, 2]
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith(f"error: there is no MLflow store at {tmp_path}/none/mlflow.db yet; ")
    assert errors[1] == "error: list: unrecognized arguments: all; write python -m sweeps list [--store URI]"
