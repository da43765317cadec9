"""--scale: the sweep of a study at a scale, and refusals of a missing, unknown or unexpected scale.

Run: python -m pytest tests/unit/config/test_scales.py
"""

import json
from types import ModuleType
from typing import get_args

import pytest

from analysis.store.scales import SCALE_NAMES
from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten, unflatten
from jepa_train.config.presets import PRESETS
from jepa_train.config.scales import SCALES, SEEDS, Scale
from sweeps import demo_lejepa, lejepa_batch, lejepa_sigreg, rectified_targets, rectified_targets_cifar100
from sweeps.__main__ import main as several
from sweeps.engine import main
from sweeps.engine.plan.describe import experiment_tags
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.cells import fixed_cells
from sweeps.engine.spec.scale import at_scale


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(lejepa_batch.sweep, lejepa_batch.__file__, words) == 2
    *_, line = capsys.readouterr().err.splitlines()  # after the line about imports
    return line


def test_scale_names_are_equal_in_studies_and_tables() -> None:
    assert SCALE_NAMES == get_args(Scale) == (*SCALES,)


def test_a_missing_or_unknown_scale_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    missing = refusal(capsys)
    assert missing.startswith("error: --scale must be given, one of mini (the bundled digits, ")
    assert all(f"{name} ({about})" in missing for name, about in SCALES.items())
    assert "invalid choice: 'medium'" in refusal(capsys, "--scale", "medium")
    assert refusal(capsys, "--scale") == "error: --scale needs a value; --help lists the options"


def test_sweeps_without_scales_refuse_one() -> None:
    with pytest.raises(ConfigError, match=r"^--scale is of sweep files with scales, got mini for demo_lejepa; "):
        at_scale(demo_lejepa.SWEEP, "mini")


@pytest.mark.parametrize("scale", ["lab", "paper"])
@pytest.mark.parametrize("study", [rectified_targets, rectified_targets_cifar100])
def test_baselines_have_the_augmentation_of_their_own_recipe(study: ModuleType, scale: Scale) -> None:
    made = study.sweep(scale)
    configs = [unflatten({key: values[0] for key, values in grid.items()}, base=made.base) for grid in made.grids]
    found = {config.method.name: config.views for config in configs}
    images = "imagenet100_resnet50" if (study, scale) == (rectified_targets, "paper") else "cifar100_resnet18"
    assert found == {
        "rectified_lpjepa": PRESETS[f"rectified_lpjepa_{images}"].views,
        "vicreg": PRESETS[f"vicreg_{images}"].views,
        "simclr": PRESETS[f"simclr_{images}"].views,
        "ncl": PRESETS[f"simclr_{images}"].views,
        "lejepa": made.base.views,
    }


@pytest.mark.parametrize("scale", SCALES)
def test_table_1a_has_its_knots_on_the_half_range(scale: Scale) -> None:
    base = lejepa_sigreg.sweep(scale).base
    assert isinstance(base, TrainConfig)
    assert flatten(base)["method.domain"] == "half"


def test_several_studies_run_at_one_scale(capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    assert several(["lejepa_batch", "--status", "--json", "--scale", "mini"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert facts["sweep"] == "lejepa_batch_mini"


def test_the_experiment_is_tagged_with_study_and_scale(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    plan = make_plan(lejepa_batch.sweep("mini"), tmp_path / "lejepa_batch.py")
    tags = experiment_tags(plan)
    assert (tags["sweep.name"], tags["sweep.scale"]) == ("lejepa_batch", "mini")
    assert len(fixed_cells(plan.sweep, plan.base)) == 4 * len(SEEDS["mini"])
