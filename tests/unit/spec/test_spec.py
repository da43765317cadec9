"""Sweeps: planned right, and refused in one line before anything starts."""

import dataclasses

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig, ModelConfig, TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.methods import RectifiedLpJEPA
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.cells import fixed_cells
from sweeps.engine.spec.sweep import BestOf, Sweep

RECTIFIED = TrainConfig(method=RectifiedLpJEPA())


def make(**fields: object) -> Sweep:
    """A valid sweep, changed."""
    return Sweep(**({"name": "study", "purpose": "A study.", "base": TrainConfig()} | fields))


def test_grid_times_seeds_with_references_first():
    sweep = make(
        base=RECTIFIED,
        grid={"method.p": [1, 2.0], "method.mu": [0.0, -1.0]},
        seeds=(4, 5),
        references=({"epochs": 0},),
    )
    cells = fixed_cells(sweep, RECTIFIED)
    assert [cell.role for cell in cells] == ["reference"] + ["cell"] * 8
    assert [(cell.config.method.p, cell.config.method.mu, cell.config.seed) for cell in cells[1:]] == [
        (p, mu, seed) for p in (1.0, 2.0) for mu in (0.0, -1.0) for seed in (4, 5)
    ]
    assert cells[1].label == "p=1 mu=0 seed=4"
    assert (cells[0].config.epochs, cells[0].config.seed) == (0, 4)
    assert len({cell.key for cell in cells}) == 9


def test_without_grid_or_space_the_base_is_the_one_cell():
    (cell,) = fixed_cells(make(seeds=(7,)), TrainConfig())
    assert flatten(cell.config) == flatten(dataclasses.replace(TrainConfig(), seed=7))


def test_an_image_folder_that_is_not_there_is_refused(tmp_path):
    base = TrainConfig(data=DataConfig(name="image_folder", path=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match=r"^data\.path"):
        make_plan(make(base=base), tmp_path / "study.py")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"grid": {"method.lamda": [0.1]}}, ("method.lamda", "did you mean 'method.lamb'?")),
        ({"grid": {"method.lamb": [0.1, 1.5]}}, ("method.lamb", "[0, 1]", "1.5")),
        ({"grid": {"method.lamb": ["0.1"]}}, ("method.lamb", "number", "'0.1'")),
        ({"grid": {"method.lamb": []}}, ("method.lamb", "non-empty")),
        ({"grid": {"method.lamb": 0.1}}, ("method.lamb", "list", "0.1")),
        ({"grid": {"method.lamb": [0.1, 0.1]}}, ("method.lamb", "twice")),
        ({"grid": {"seed": [0, 1]}}, ("seed", "seeds=(0, 1, 2)")),
        ({"base": RECTIFIED, "grid": {"method.p": [1.0, 0.0]}}, ("method.p", "positive", "0.0")),
        ({"references": ({"epoch": 0},)}, ("epoch", "did you mean 'epochs'?")),
        ({"space": {"optim.lrr": FloatDistribution(1e-4, 1e-2)}, "trials": 2}, ("optim.lrr", "'optim.lr'")),
        ({"space": {"method.lamb": FloatDistribution(0.5, 1.5)}, "trials": 2}, ("method.lamb", "[0, 1]", "1.5")),
        ({"space": {"precision": CategoricalDistribution(["fp32", "fp8"])}, "trials": 2}, ("precision", "fp8")),
        ({"space": {"optim.lr": [1e-3, 1e-2]}, "trials": 2}, ("optim.lr", "distribution")),
        ({"space": {"optim.lr": FloatDistribution(1e-4, 1e-2)}}, ("trials", "0")),
        ({"trials": 3}, ("trials", "3")),
        (
            {"grid": {"optim.lr": [1.0]}, "space": {"optim.lr": FloatDistribution(1e-4, 1.0)}, "trials": 1},
            ("optim.lr", "grid", "space"),
        ),
        ({"seeds": (0, 0)}, ("seeds", "(0, 0)")),
        ({"seeds": ()}, ("seeds", "()")),
        ({"workers": 3}, ("global_batch", "128", "3 workers", "129")),
        ({"workers": 0}, ("workers", "0")),
        ({"workers": 2, "grid": {"global_batch": [128, 33]}}, ("global_batch", "33", "34")),
        ({"objective": "val/loss"}, ("objective", "val/loss", "try val/probe_top1")),
        ({"objective": "val/lr"}, ("objective", "val/lr")),
        ({"objective": "val/knn_top"}, ("objective", "'val/knn_top'", "did you mean 'knn_top1'?")),
        ({"objective": 3}, ("objective", "text", "3")),
        ({"objective": "test/probe_top1"}, ("objective", "val", "test/probe_top1")),
        ({"objective": "val/prob_top1"}, ("objective", "prob_top1", "probe_top1")),
        ({"name": "My sweep"}, ("name", "My sweep")),
        ({"name": 3}, ("name", "text", "3 (int)")),
        ({"purpose": None}, ("purpose", "text", "None", "docstring", "purpose=__doc__")),
        ({"base": "digits"}, ("base", "TrainConfig(...) or BestOf(...)", "'digits'", "jepa_train.config.presets")),
        ({"references": {"epochs": 0}}, ("references", "tuple", "{'epochs': 0}", "comma")),
        ({"references": ("epochs",)}, ("references[0]", "dict", "'epochs'")),
        ({"references": ({"method": ["lejepa"]},)}, ("references[0]['method']", "['lejepa']")),
        ({"seeds": 0}, ("seeds", "tuple", "0 (int)", "seeds=(0, 1, 2)")),
        ({"seeds": "01"}, ("seeds", "tuple", "'01'")),
        ({"seeds": (0, 1.5)}, ("seeds[1]", "whole number", "1.5")),
        ({"seeds": (-1,)}, ("seed", "[0, 2**31)", "-1")),
        ({"trials": "2"}, ("trials", "whole number", "'2'")),
        ({"workers": "2"}, ("workers", "whole number", "'2'")),
        ({"workers": True}, ("workers", "whole number", "True")),
        ({"cpus_per_worker": 1.5}, ("cpus_per_worker", "whole number", "1.5")),
        ({"gpus_per_worker": "1"}, ("gpus_per_worker", "number", "'1'")),
        ({"gpus_per_worker": -2}, ("gpus_per_worker", "-1", "0 or more", "-2")),
        ({"grid": 3}, ("grid", "dict", "list", "3 (int)", "write grid={")),
        ({"grid": [{"method.lamb": 0.1}]}, ("grid[0]['method.lamb']", "list", "0.1")),
        ({"grid": [{"method.lamb": [0.1]}, {}]}, ("grid[1]", "axis")),
        ({"grid": {"method.lamb": [[0.1], [0.2]]}}, ("grid['method.lamb'][0]", "number", "[0.1] (list)")),
        ({"grid": {3: [1]}}, ("grid", "text", "3 (int)")),
        ({"space": [FloatDistribution(1e-4, 1e-2)], "trials": 2}, ("space", "dict", "FloatDistribution", "write")),
    ],
)
def test_what_is_typed_wrong_is_answered_in_one_line(fields: dict, words: tuple[str, ...]):
    with pytest.raises(ConfigError) as caught:
        make(**fields)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_encoder_that_timm_does_not_know_is_named_with_the_nearest(tmp_path):
    base = TrainConfig(model=ModelConfig(encoder="resnet81"))
    with pytest.raises(ConfigError, match=r"model\.encoder .*'resnet81'.*did you mean 'resnet18'"):
        make_plan(make(base=base), tmp_path / "study.py")


def test_a_list_serves_as_a_tuple_and_a_whole_number_of_gpus_as_a_number():
    sweep = make(grid={"epochs": range(1, 4)}, seeds=[0, 1], references=[{"epochs": 0}], gpus_per_worker=1)
    assert sweep == make(grid={"epochs": [1, 2, 3]}, seeds=(0, 1), references=({"epochs": 0},), gpus_per_worker=1.0)
    assert len(fixed_cells(sweep, TrainConfig())) == 1 + 3 * 2


def test_the_best_of_what_is_no_name_is_refused():
    with pytest.raises(ConfigError, match=r"^sweep must be text, got Sweep\(name='study'"):
        BestOf(make())


def test_corners_show_every_value_and_both_ends():
    grid = make(grid={"epochs": [1, 2, 3], "optim.lr": [0.1, 0.2]})
    assert {key: {point[key] for point in grid.corners()} for key in grid.axes} == {
        "epochs": {1, 2, 3},
        "optim.lr": {0.1, 0.2},
    }
    space = make(
        space={"optim.lr": FloatDistribution(0.1, 0.2), "precision": CategoricalDistribution(["fp32", "bf16"])},
        trials=1,
    )
    assert {point["optim.lr"] for point in space.corners()} == {0.1, 0.2}
    assert {point["precision"] for point in space.corners()} == {"fp32", "bf16"}
