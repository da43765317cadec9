"""Refusal of cells for which the training images are too few, before anything starts.

Run: python -m pytest tests/unit/plan/test_sizes.py
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from folders_of_images import folder_config, write_folder
from optuna.distributions import IntDistribution

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.config.presets import DIGITS
from jepa_train.data.splits import class_sizes, identify, load_splits
from jepa_train.train.preflight import CheckedData, preflight
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.cells import data_checked_by, preflighted
from sweeps.engine.spec.sweep import Sweep

FILE = Path("study.py")
SHOTS = dataclasses.replace(DIGITS.probe, protocols="kshot,knn,finetune")

pytestmark = pytest.mark.usefixtures("no_store")


@pytest.fixture
def no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def sweep_of(base: dict[str, Any], **fields: Any) -> Sweep:
    return Sweep(**({"name": "study", "purpose": "", "base": dataclasses.replace(DIGITS, **base)} | fields))


REFUSED = {  # -> changes of the base, fields of the sweep, words of the message
    "batch": ({"global_batch": 1223}, {}, "global_batch must not exceed the 1222 training images of digits, got 1223"),
    "batch of one cell": ({}, {"grid": {"global_batch": [128, 2000]}}, "got 2000; lower it"),
    "batch of the smaller data": (
        {"global_batch": 1000},
        {"grid": {"data.name": ["digits", "digits_0_4"]}},
        "the 613 training images of digits_0_4, got 1000",
    ),
    "largest batch of a space": (
        {},
        {"space": {"global_batch": IntDistribution(64, 4096)}, "trials": 2},
        "got 4096; lower it",
    ),
    "more images than there are": ({"data.train_images": 1439}, {}, "data.train_images must not exceed the 1438"),
    "fewer than two per class": ({"data.train_images": 19}, {}, "data.train_images must be two for each of 10 classes"),
    "shots": ({"probe": SHOTS}, {"objective": "val/shot1000_top1"}, "got 124 of the largest class; choose a smaller"),
    "shots of a part": (
        {"probe": SHOTS, "data.train_images": 60},
        {"objective": "val/finetune10_top1"},
        "got 5 of the",
    ),
    "neighbours": (
        {"probe": SHOTS, "data.train_images": 200},
        {"objective": "val/knn200_top1"},
        "needs as many training images as it says, got 170 of all classes",
    ),
    "neighbours of a constraint": (
        {"probe": SHOTS, "data.train_images": 200},
        {"space": {"global_batch": [16]}, "trials": 1, "constraints": ("val/knn200_top1 >= 0.5",)},
        "constraint 'val/knn200_top1 >= 0.5' needs as many training images as it says, got 170 of all classes",
    ),
}


@pytest.mark.parametrize(("base", "fields", "words"), REFUSED.values(), ids=REFUSED)
def test_too_few_training_images_are_refused_in_one_line(base: dict, fields: dict, words: str) -> None:
    data = {key.partition(".")[2]: value for key, value in base.items() if key.startswith("data.")}
    base = {key: value for key, value in base.items() if not key.startswith("data.")}
    if data:
        base |= {"data": dataclasses.replace(DIGITS.data, **data), "global_batch": 16}
    with pytest.raises(ConfigError) as refused:
        make_plan(sweep_of(base, **fields), FILE)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_status_in_the_same_process_hides_no_batch_that_is_too_large() -> None:
    """It knows the data by their record, without the sizes of their classes."""
    make_plan(sweep_of({}), FILE)
    with data_checked_by(lambda config: CheckedData(config=preflight(config).data)):
        preflighted(DIGITS)
    with pytest.raises(ConfigError, match="global_batch must not exceed the 1222"):
        make_plan(sweep_of({"global_batch": 1223}), FILE)


def test_cells_that_can_run_are_planned_whatever_the_base_says() -> None:
    assert make_plan(sweep_of({"global_batch": 1222}), FILE).total == 1
    assert make_plan(sweep_of({"global_batch": 9999}, grid={"global_batch": [64]}), FILE).total == 1
    few = sweep_of({"probe": SHOTS}, objective="val/shot100_top1")
    assert make_plan(few, FILE).total == 1


def test_a_folder_of_images_and_a_single_run(tmp_path: Path) -> None:
    config = dataclasses.replace(DIGITS, data=folder_config(write_folder(tmp_path / "images")), global_batch=9)
    for check in (preflight, lambda config: make_plan(sweep_of({"data": config.data, "global_batch": 9}), FILE)):
        with pytest.raises(ConfigError, match="must not exceed the 8 training images of image_folder, got 9; lower it"):
            check(config)
    assert preflight(dataclasses.replace(config, global_batch=8)).global_batch == 8


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "digits_0_4"},
        {"name": "digits_5_9", "val_frac": 0.4},
        {"train_images": 57},
        {"train_images": 300, "val_frac": 0.01},
        {"name": "image_folder", "val_frac": 0.5},
    ],
)
def test_sizes_are_those_of_the_splits(fields: dict, tmp_path: Path) -> None:
    config = DataConfig(image_size=8, **fields)
    if config.name == "image_folder":
        config = dataclasses.replace(config, path=str(write_folder(tmp_path / "images")))
    assert class_sizes(*identify(config)) == tuple(load_splits(config).train.labels.bincount().tolist())
