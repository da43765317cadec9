"""Studies of the papers' tables: at every scale a sweep whose cells could run.

Run: python -m pytest tests/unit/spec/test_studies.py
"""

import importlib
from pathlib import Path

import pytest

from analysis.tables import table_names
from jepa_train.config.flat import unflatten
from jepa_train.config.scales import SCALES, Scale
from sweeps.engine.spec.sweep import Sweep

FOLDER = Path(__file__).parents[3] / "sweeps"
STUDIES = sorted(file.stem for file in FOLDER.glob("*.py") if "def sweep(scale" in file.read_text())


def study(name: str, scale: Scale) -> Sweep:
    return importlib.import_module(f"sweeps.{name}").sweep(scale)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_named_after_its_file_and_scale_and_has_a_table(name: str) -> None:
    for scale in SCALES:
        sweep = study(name, scale)
        assert (sweep.name, sweep.study, sweep.scale) == (f"{name}_{scale}", name, scale)
    assert name in table_names()


@pytest.mark.parametrize("name", STUDIES)
def test_at_the_papers_scale_no_encoder_loses_the_stem_made_for_its_images(name: str) -> None:
    sweep = study(name, "paper")
    for point in sweep.corners():
        config = unflatten(point, base=sweep.base)
        assert not (config.model.small_stem and config.views.global_size > 64), config.model.encoder
