"""The last cell of every study at mini, for one epoch, in one launch; then the study's table from the store.

Run: python -m pytest tests/slow/test_every_study.py
"""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.__main__ import main as analysis
from sweeps.engine.cli.args import read_words
from sweeps.engine.cli.modes import launch_sweeps
from sweeps.engine.spec.sweep import Sweep

FOLDER = Path(__file__).parents[2] / "sweeps"
STUDIES = sorted(file.stem for file in FOLDER.glob("*.py") if "def sweep(scale" in file.read_text())


def last_cell(name: str) -> tuple[Sweep, Path]:
    """A study at mini, reduced to the last value of every axis, one epoch and one seed."""
    sweep = importlib.import_module(f"sweeps.{name}").sweep("mini")
    point = {key: values[-1:] for key, values in sweep.grids[-1].items()}
    point |= {key: (1,) for key in ("epochs",) if key in point}
    base = dataclasses.replace(sweep.base, epochs=1)
    return dataclasses.replace(sweep, base=base, grid=point, seeds=(0,)), FOLDER / f"{name}.py"


@pytest.mark.usefixtures("shared_ray")
def test_a_cell_of_every_study_runs_and_appears_in_its_table(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(STUDIES) >= 16
    assert launch_sweeps([last_cell(name) for name in STUDIES], read_words([])) == 0
    client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    for name in STUDIES:
        experiment = client.get_experiment_by_name(f"{name}_mini")
        runs = client.search_runs([experiment.experiment_id], "tags.cell_key != ''")
        assert [run.data.tags["status"] for run in runs] == ["finished"], name
        capsys.readouterr()
        assert analysis([name, "--scale", "mini"]) == 0
        assert re.search(r"\| +\**\d+\.\d\d", capsys.readouterr().out), name
