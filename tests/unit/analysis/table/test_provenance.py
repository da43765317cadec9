"""Files of a table: the provenance of every number, and equal bytes for equal runs.

Run: python -m pytest tests/unit/analysis/table/test_provenance.py
"""

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_runs

from analysis import tables
from analysis.__main__ import main
from analysis.table.layout import FinishedTable
from analysis.table.provenance import write_table


def built(order: int = 1) -> FinishedTable:
    def measure(config: dict[str, Any]) -> Any:
        results = {"test/probe_top1": 0.5 + config["seed"] / 10, "val/probe_top1": 0.5}
        return "diverged" if config["seed"] == 2 else results

    runs = made_runs({"global_batch": [32, 64]}, measure)[::order].reset_index(drop=True)
    return tables.find_table("lejepa_batch", "sqlite:////nowhere/mlflow.db", "mini").finish(runs)


def test_every_number_names_its_runs_their_cells_seeds_values_and_commits(tmp_path: Path) -> None:
    files = write_table(built(), tmp_path / "out", store="sqlite:////home/me/mlflow.db")
    assert [file.name for file in files] == [
        *(f"lejepa_batch-mini.{ending}" for ending in ("md", "tex", "html", "csv", "provenance.json"))
    ]
    again = write_table(built(-1), tmp_path / "again", store="sqlite:////home/me/mlflow.db")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again], "in whatever order they come"
    stored = json.loads(files[-1].read_text())
    assert (stored["store"], stored["sweeps"], len(stored["numbers"])) == ("mlflow.db", ["study"], 2)
    number = stored["numbers"][1]
    place = {"row": {"row": "top-1 (%) ↑"}, "column": {"global batch": 64}, "metric": "test/probe_top1"}
    assert number.items() >= place.items()
    assert (number["mean"], number["n"], number["text"]) == (pytest.approx(55.0), 2, "55.00 ± 7.07 (n=2, 1 diverged)")
    run = {"run_id": "run-study-004", "cell_key": "study-004", "sweep": "study", "seed": 1}
    code = {"commit": "a" * 40, "git_dirty": "false", "code_version": f"commit:{'a' * 40}"}
    assert number["runs"][1] == run | {"value": pytest.approx(60.0)} | code
    assert [(run["run_id"], run["state"]) for run in number["without a number"]] == [("run-study-005", "diverged")]


def test_the_command_line_writes_all_of_it(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tables"
    assert main(["demo_rectified_lpjepa", "--store", store, "--output", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("**Rectified LpJEPA")
    assert out.splitlines()[-1] == str(folder / "demo_rectified_lpjepa.provenance.json")
    words = ["lejepa_sigreg_time", "--store", store, "--against-paper", "--output", str(folder)]
    assert main(words) == 0
    names = {file.name for file in folder.glob("lejepa*against-paper*")}
    assert names == {f"lejepa_sigreg_time-against-paper.{ending}" for ending in ("md", "tex", "html", "csv")}
    assert main(["demo_lejepa", "--store", store, "--against-paper"]) == 2
    assert capsys.readouterr().err.startswith("error: no published number of demo_lejepa is known; there are some of")
