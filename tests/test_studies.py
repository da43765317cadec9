"""The studies of the papers' tables: at every scale a plan of cells that could run."""

import importlib
from pathlib import Path

import pytest

from jepa_train.scales import SCALES, Scale
from sweeps.engine.cells import fixed_cells
from sweeps.engine.spec import Sweep

FOLDER = Path(__file__).parents[1] / "sweeps"
STUDIES = sorted(file.stem for file in FOLDER.glob("*.py") if "def sweep(scale" in file.read_text())


def study(name: str, scale: Scale) -> Sweep:
    return importlib.import_module(f"sweeps.{name}").sweep(scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_named_after_its_file_and_scale(name: str, scale: Scale) -> None:
    sweep = study(name, scale)
    assert (sweep.name, sweep.study, sweep.scale) == (f"{name}_{scale}", name, scale)
    assert len(sweep.purpose.split()) > 20


@pytest.mark.parametrize("name", STUDIES)
def test_at_mini_scale_every_cell_can_run_and_is_one_of_its_kind(name: str) -> None:
    sweep = study(name, "mini")
    cells = fixed_cells(sweep, sweep.base)  # preflight builds every encoder and takes every view
    assert len({cell.key for cell in cells}) == len(cells) >= len(sweep.seeds) * 2
    assert all(cell.config.data.name.startswith("digits") for cell in cells)
