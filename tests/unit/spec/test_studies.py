"""Studies of the papers' tables: at every scale a sweep whose cells could run.

Run: python -m pytest tests/unit/spec/test_studies.py
"""

import dataclasses
import importlib
import itertools
from pathlib import Path

import pytest
from PIL import Image

from analysis.tables import table_names
from jepa_train.config.flat import unflatten
from jepa_train.config.scales import SCALES, Scale
from sweeps.engine.plan.plan import make_plan
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


def test_data_as_an_axis_are_found_where_the_base_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = study("lejepa_indomain", "paper")
    for folder in sweep.grids[0]["data.path"]:
        for split, label in itertools.product(("train", "test"), ("a", "b")):
            place = Path(str(folder)) / split / label
            place.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(place / f"{number}-{Path(str(folder)).name}.png")
    plan = make_plan(dataclasses.replace(sweep, grid={**sweep.grids[0], "model.encoder": ["resnet18"]}), tmp_path / "x")
    assert len(plan.missing) == 6 * 2 * 3
