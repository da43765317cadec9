"""Cells of a sweep, and refusal of wrong fields in one line.

Run: python -m pytest tests/unit/spec/test_spec.py
"""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.config.presets import PRESETS
from jepa_train.methods import METHODS, RectifiedLpJEPA
from sweeps.engine.spec.cells import fixed_cells, preflighted, shared_fields
from sweeps.engine.spec.objective import Asha, LabelFree, parse_objective
from sweeps.engine.spec.search_space import Domain
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.spec.table import Table

RECTIFIED = TrainConfig(method=RectifiedLpJEPA())
CELLS = PRESETS["unlabelled_folder"]


LAMB = {"method.lamb": FloatDistribution(0.1, 0.5)}
LIMITED = {"space": LAMB, "trials": 2}


SPARSE = {"val/nonzero_fraction": "min"}
UNMEASURED = {  # name on train -> end of the message
    "peak_memory": "did you mean 'train/peak_memory_gb'?",
    "effective_rank": "did you mean 'train/invariance'?",
    "rdmreg": "train/sigreg",
    "nonzero_fraction": "train/sigreg",  # z is not rectified
    "skipped_steps": "train/sigreg",  # of fp16
}


def make(**fields: object) -> Sweep:
    """A valid sweep, changed."""
    return Sweep(**({"name": "study", "purpose": "A study.", "base": TrainConfig()} | fields))


def test_grid_times_seeds_with_references_first():
    grid = {"method.p": [1, 2.0], "method.mu": [0.0, -1.0]}
    sweep = make(base=RECTIFIED, grid=grid, seeds=(4, 5), references=({"epochs": 0},))
    cells = fixed_cells(sweep, RECTIFIED)
    assert [cell.role for cell in cells] == ["reference"] + ["cell"] * 8
    assert [(cell.config.method.p, cell.config.method.mu, cell.config.seed) for cell in cells[1:]] == [
        (p, mu, seed) for p in (1.0, 2.0) for mu in (0.0, -1.0) for seed in (4, 5)
    ]
    assert cells[1].label == "p=1 mu=0 seed=4"
    assert (cells[0].config.epochs, cells[0].config.seed) == (0, 4)
    assert len({cell.key for cell in cells}) == 9


def test_numpy_and_pandas_values_give_the_same_sweep_keys_and_labels():
    python = make(
        base=dataclasses.replace(RECTIFIED, epochs=3),
        grid=[{"method.p": [1.0, 2.0], "model.predictor": [False]}, {"method.p": [0.25, 0.5], "optim.name": ["lars"]}],
        space={"global_batch": CategoricalDistribution([128, 256]), "optim.lr": FloatDistribution(0.001, 0.1)},
        trials=2,
        seeds=(0, 1),
        references=({"epochs": 0},),
        early_stopping=Asha(first=1, eta=2),
        gpus_per_worker=0.25,
    )
    with warnings.catch_warnings(action="ignore"):  # Optuna's, that a database takes no int64
        choices = CategoricalDistribution(np.array([128, 256]))
    other = make(
        name=np.str_("study"),
        base=dataclasses.replace(RECTIFIED, epochs=np.int64(3)),
        grid=np.array(
            [
                {"method.p": np.arange(1.0, 3), "model.predictor": np.array([False])},
                {"method.p": pd.Series([0.25, 0.5], dtype="float32"), "optim.name": pd.Series(["lars"])},
            ]
        ),
        space={"global_batch": choices, "optim.lr": FloatDistribution(*np.logspace(-3, -1, 2, dtype=np.float32))},
        trials=np.int32(2),
        seeds=np.arange(2),
        references=({np.str_("epochs"): np.array(0)},),
        early_stopping=Asha(first=np.int64(1), eta=np.array(2)),
        gpus_per_worker=np.float32(0.25),
    )
    assert repr(other) == repr(python)
    ablations = [dataclasses.replace(sweep, space={}, trials=0, early_stopping=None) for sweep in (python, other)]
    expected, found = ([(cell.key, cell.label) for cell in fixed_cells(sweep, sweep.base)] for sweep in ablations)
    assert found == expected


def test_a_list_is_a_domain_of_its_values():
    listed = make(space={"global_batch": [128, 256], "optim.lr": np.array([0.001, 0.01])}, trials=2)
    choices = {"global_batch": [128, 256], "optim.lr": [0.001, 0.01]}
    expected = {key: CategoricalDistribution(values) for key, values in choices.items()}
    assert listed == make(space=expected, trials=2)


def test_the_cells_of_an_axis_that_sets_mu_share_all_but_mu():
    grid = {"method.p": [1.0, 2.0], "method.nonzero_target": [0.1, 0.5]}
    sweep = make(base=RECTIFIED, grid=grid)
    shared = shared_fields(RECTIFIED, sweep.axes)
    for cell in fixed_cells(sweep, RECTIFIED):
        assert shared.items() <= {key: str(value) for key, value in flatten(cell.config).items()}.items()
    assert flatten(RECTIFIED).keys() - shared.keys() >= {*grid, "method.mu", "seed"}
    assert "method.mu" in shared_fields(RECTIFIED, ["method.p"])


def test_without_grid_or_space_the_base_is_the_one_cell():
    (cell,) = fixed_cells(make(seeds=(7,)), TrainConfig())
    assert flatten(cell.config) == flatten(dataclasses.replace(TrainConfig(), seed=7))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"grid": {"method.lamda": [0.1]}}, ("method.lamda", "did you mean 'method.lamb'?")),
        ({"grid": {"method.lamb": [0.1, 1.5]}}, ("method.lamb", "[0, 1]", "1.5")),
        ({"grid": {"method.lamb": [0.1, 0.1]}}, ("method.lamb", "each once")),
        ({"grid": {"seed": [0, 1]}}, ("seed", "seeds=(0, 1, 2)")),
        ({"space": {"method.lamb": FloatDistribution(0.5, 1.5)}, "trials": 2}, ("method.lamb", "[0, 1]", "1.5")),
        ({"space": {"precision": CategoricalDistribution(["fp32", "fp8"])}, "trials": 2}, ("precision", "fp8")),
        ({"space": {"optim.lr": FloatDistribution(1e-4, 1e-2)}}, ("trials", "0")),
        ({"space": {"epochs": []}, "trials": 2}, ("space['epochs']", "at least one", "leave it out")),
        ({"space": {"epochs": [5, 5]}, "trials": 2}, ("space['epochs']", "each once", "(5, 5)")),
        ({"space": {"epochs": 5}, "trials": 2}, ("space['epochs']", "5 (int)", "a list of values, or a distribution")),
        ({"space": {"epochs": [5, 0.5]}, "trials": 2}, ("epochs", "whole number", "0.5")),
        ({"seeds": (0, 0)}, ("seeds", "(0, 0)", "keep one of each")),
        ({"grid": {"epochs": []}}, ("grid['epochs']", "at least one", "leave it out")),
        ({"name": "study", "scale": "mini"}, ("name must end in the scale", "'study' at mini", "write name=")),
        ({"workers": 3}, ("global_batch", "128", "3 workers", "129")),
        ({"objective": "val/knn_top"}, ("objective", "'val/knn_top'", "did you mean 'val/knn_top1'?")),
        ({"objective": "test/probe_top1"}, ("objective", "val", "test/probe_top1")),
        ({"name": "My sweep"}, ("name", "My sweep")),
        ({"base": "digits"}, ("base", "TrainConfig(...) or BestOf(...)", "'digits'", "jepa_train.config.presets")),
        ({"references": {"epochs": 0}}, ("references", "tuple", "{'epochs': 0}", "comma")),
        ({"gpus_per_worker": "measured"}, ("gpus_per_worker", "number", "'measured'", "leave it out")),
        ({"gpus_per_worker": 0.5, "workers": 2}, ("gpus_per_worker", "one worker", "0.5 for 2 workers")),
        (
            {"early_stopping": Asha(first=100)},
            ("early_stopping", "Asha(first=100, eta=3)", "100 epochs"),
        ),
        ({"early_stopping": Asha(first=6), "grid": {"epochs": [20, 5]}}, ("before the last epoch", "of 5 epochs")),
        ({"warm_start": ("other",)}, ("warm_start", "for a search", "other")),
        ({"grid": {"method.lamb": [[0.1], [0.2]]}}, ("grid['method.lamb'][0]", "number", "[0.1] (list)")),
        (
            {"base": CELLS, "objective": "val/linear_top1"},
            ("objective 'val/linear_top1' needs labels", "unlabelled_folder", "LabelFree()"),
        ),
        (
            {"base": CELLS, "objective": "val/probe_top1"},
            ("objective 'val/probe_top1' needs labels", "unlabelled_folder", "LabelFree()"),
        ),
        (
            {"base": CELLS, **LIMITED, "constraints": ("val/probe_top1 >= 0.5",)},
            ("constraint 'val/probe_top1 >= 0.5' needs labels", "unlabelled_folder", "val/effective_rank"),
        ),
        (
            {"grid": {"data.name": ["digits", "unlabelled_folder"]}},
            ("objective 'val/probe_top1' needs labels", "unlabelled_folder", "val/effective_rank"),
        ),
        (
            {"base": CELLS, "grid": {"method.lamb": [0.0, 0.1]}},
            ("LabelFree() needs method.lamb above 0", "rank by val/effective_rank"),
        ),
        (
            {"grid": {"method": ["lejepa", "visreg"]}, "objective": LabelFree()},
            ("LabelFree() compares losses of one method", "got lejepa, visreg", "rank by val/probe_top1"),
        ),
        (
            {"base": CELLS, "table": Table(metrics=["train/loss", "test/linear_top1"])},
            ("table.metrics must need no labels", "unlabelled_folder", "'test/linear_top1'", "take it out"),
        ),
        (
            {"space": LAMB, "trials": 2, "seeds_per_trial": 3},
            ("seeds_per_trial", "at most the number", "3 with seeds=(0,)", "seeds=(0, 1, 2) or --seeds 0-2"),
        ),
        ({"seeds": (0,), "seeds_per_trial": 2}, ("seeds_per_trial is of a search, got 2 without a space; leave it",)),
        (
            {"space": LAMB, "trials": 2, "seeds": (0, 1), "objective": {"val/probe_top1": "max", **SPARSE}},
            ("seeds of a search for several objectives", "got (0, 1) and 1; give 1, or write seeds_per_trial=2"),
        ),
        ({"space": LAMB, "trials": 2, "seeds_per_trial": 0}, ("seeds_per_trial must be at least 1", "got 0")),
        ({"constraints": ("train/peak_memory_gb <= 20",)}, ("constraints", "without a space", "leave them out")),
        (
            {**LIMITED, "constraints": ("peak memory < 20",)},
            ("constraints", "'METRIC <= NUMBER'", "'peak memory < 20'"),
        ),
        ({**LIMITED, "constraints": ("peak memory <= 20 MB",)}, ("constraints", "'METRIC <= NUMBER'", "20 MB")),
        ({**LIMITED, "constraints": ("images/s >= 20 GB",)}, ("constraints", "leave out the unit GB")),
        (
            {**LIMITED, "constraints": ("test/knn_top1 >= 0.5",)},
            ("constraints", "test is evaluated once", "test/knn_top1"),
        ),
        *(
            ({**LIMITED, "constraints": (f"train/{name} <= 20",)}, (f"runs of lejepa report, got 'train/{name}'", near))
            for name, near in UNMEASURED.items()
        ),
        (
            {"constraints": ("train/sigreg <= 1",), "space": {"method": ["lejepa", "vicreg"]}, "trials": 2},
            ("constraint 'train/sigreg <= 1'", "runs of vicreg report"),
        ),
        (
            {**LIMITED, "constraints": ("val/finetune_top1 >= 0.5",)},
            ("constraint", "by the protocol finetune", "add it there"),
        ),
        ({**LIMITED, "constraints": "peak memory <= 20"}, ("constraints", "tuple", "with the comma")),
        (
            {"space": {"method.lamb": Domain([0.1, 0.2], when={"epoch": 5})}, "trials": 2, "grid": {"epochs": [5]}},
            ("space['method.lamb']", "earlier keys", "when='epoch'", "did you mean 'epochs'?"),
        ),
        (
            {"space": {"method.lamb": Domain([0.1], when={"optim.lr": 0.1}), "optim.lr": [0.1]}, "trials": 2},
            ("space['method.lamb']", "earlier keys", "when='optim.lr'"),
        ),
        (
            {"space": {**LAMB, "optim.lr": Domain([0.1], when={"method.lamb": 0.5})}, "trials": 2},
            ("space['optim.lr']", "with listed values", "when='method.lamb'"),
        ),
        (
            {"space": {"optim.lr": Domain([0.1], when={"epochs": 7})}, "trials": 2, "grid": {"epochs": [5, 10]}},
            ("space['optim.lr']", "values that they may have", "(7,)", "choose among [5, 10]"),
        ),
        (
            {
                "grid": [{"epochs": [5]}, {"global_batch": [64]}],
                "space": {"optim.lr": Domain([0.1], when={"epochs": 5, "global_batch": 64})},
                "trials": 2,
            },
            ("space['optim.lr']", "never hold together"),
        ),
        ({"table": ["method.lamb"]}, ("table", "Table(...) or None", "['method.lamb']", "write table=Table(")),
    ],
)
def test_wrong_fields_are_answered_in_one_line(fields: dict, words: tuple[str, ...]):
    with pytest.raises(ConfigError) as caught:
        make(**fields)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("method", "term"),
    [
        ("lejepa", "sigreg"),
        ("rectified_lpjepa", "rdmreg"),
        ("rectified_lpjepa", "nonzero_fraction"),
        ("visreg", "shape"),
        ("kerjepa", "mmd"),
        ("vicreg", "covariance"),
        ("barlow_twins", "redundancy"),
        ("ncl", "nonzero_fraction"),
        ("simclr", "embedding_std"),
    ],
)
def test_constraints_may_be_on_the_terms_of_the_methods_own_loss(method: str, term: str):
    space, limit = {"optim.lr": FloatDistribution(0.1, 0.5)}, f"train/{term} <= 0.5"
    sweep = make(base=TrainConfig(method=METHODS[method]()), space=space, trials=2, constraints=(limit,))
    assert [one.name for one in sweep.limits] == [limit]


def test_corners_show_each_value_of_a_conditional_key_where_its_conditions_hold():
    space = {
        "method": ["lejepa", "rectified_lpjepa"],
        "method.p": Domain([1.0, 2.0], when={"method": "rectified_lpjepa"}),
        "method.lamb": Domain(FloatDistribution(0.1, 0.2), when={"method": "lejepa", "epochs": [5]}),
        "method.sigma_mode": Domain(["gn", "rgn"], when={"method.p": 2}),
    }
    sweep = make(grid={"epochs": [3, 5]}, space=space, trials=9)
    lejepa, rectified = {"epochs": 5, "method": "lejepa"}, {"epochs": 3, "method": "rectified_lpjepa"}
    expected = [
        {"epochs": 3, "method": "lejepa"},
        lejepa | {"method.lamb": 0.1},
        lejepa | {"method.lamb": 0.2},
        rectified | {"method.p": 1.0},
        rectified | {"method.p": 2.0, "method.sigma_mode": "gn"},
        rectified | {"method.p": 2.0, "method.sigma_mode": "rgn"},
    ]
    corners = sweep.corners()
    assert all(point in corners for point in expected)
    for point in corners:
        assert ("method.lamb" in point) == ({"epochs": 5, "method": "lejepa"}.items() <= point.items())
        assert ("method.p" in point) == (point["method"] == "rectified_lpjepa")
        assert ("method.sigma_mode" in point) == (point.get("method.p") == 2.0)


@pytest.mark.parametrize("fields", [{"values": 0.1, "when": {"epochs": 5}}, {"values": [0.1], "when": "epochs"}])
def test_a_conditional_domain_needs_values_and_conditions(fields: dict):
    with pytest.raises(ConfigError, match=r"^Domain: (values|when) must be .*, got (0.1|'epochs')"):
        Domain(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"rows": ["method.lamda"]},
            ("table.rows", "axes of the grid", "'method.lamda'", "did you mean 'method.lamb'?"),
        ),
        ({"columns": ["optim.lr"]}, ("table.columns", "axes of the grid", "'optim.lr'", "choose one of epochs,")),
        ({"rows": ["epochs"], "columns": ["epochs"]}, ("table.rows and columns", "once", "'epochs' twice", "keep one")),
        ({"rows": "epochs"}, ("table.rows", "a list", "'epochs'")),
        ({"metrics": ["test/linear_top"]}, ("table.metrics", "'test/linear_top'", "did you mean 'test/linear_top1'?")),
        ({"metrics": ["linear_top1"]}, ("table.metrics", "with their split", "'linear_top1'", "try test/linear_top1")),
        ({"metrics": ["test/knn_top1"] * 2}, ("table.metrics", "once", "'test/knn_top1' twice", "keep one")),
        ({"labels": {"epoch": "E"}}, ("table.labels", "axis or a metric", "'epoch'", "did you mean 'epochs'?")),
        ({"labels": {"epochs": "a\nb"}}, ("table.labels", "one line", "'a\\nb'", "remove the break")),
        ({"labels": {"epochs": "E", "method.lamb": "E"}}, ("table.labels", "once", "'E' twice", "keep one")),
    ],
)
def test_a_wrong_table_is_answered_in_one_line(fields: dict, words: tuple[str, ...]):
    with pytest.raises(ConfigError) as caught:
        make(grid={"method.lamb": [0.1, 0.2], "epochs": [1, 2]}, table=Table(**fields))
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_table_may_have_terms_of_any_loss_and_transfer_sets():
    metrics = ["train/redundancy", "val/knn_top1", "transfer/dtd/shot10_top1", "target/nonzero_fraction"]
    assert make(table=Table(metrics=metrics, labels={"train/redundancy": "R"})).table.metrics == tuple(metrics)


def test_without_labels_a_sweep_ranks_by_loss_or_rank():
    found = {
        name: make(
            base=dataclasses.replace(CELLS, method=method()), table=Table(metrics=["transfer/x/linear_top1"])
        ).goals
        for name, method in METHODS.items()
    }
    expected = {name: LabelFree() if getattr(METHODS[name](), "lamb", 0) else "val/effective_rank" for name in METHODS}
    assert found == {name: parse_objective(objective) for name, objective in expected.items()}
    assert {goals[0].metric for goals in found.values()} == {"train/loss", "val/effective_rank"}
    assert make().goals == parse_objective("val/probe_top1")
    assert make(base=CELLS, grid={"method": ["lejepa", "visreg"]}).goals == parse_objective("val/effective_rank")


def test_early_stopping_before_the_last_epoch_and_references_that_it_does_not_judge():
    assert make(early_stopping=Asha(first=99), references=({"epochs": 0},)).early_stopping.rungs(100) == [99]


def test_a_list_serves_as_a_tuple_and_a_whole_number_of_gpus_as_a_number():
    sweep = make(grid={"epochs": range(1, 4)}, seeds=[0, 1], references=[{"epochs": 0}], gpus_per_worker=1)
    assert sweep == make(grid={"epochs": [1, 2, 3]}, seeds=(0, 1), references=({"epochs": 0},), gpus_per_worker=1.0)


def test_a_cell_with_other_probes_is_checked_although_its_images_and_encoder_have_been() -> None:
    digits = PRESETS["digits"]
    preflighted(digits)
    transferred = dataclasses.replace(digits, probe=dataclasses.replace(digits.probe, transfer="cifar100"))
    with pytest.raises(ConfigError, match=r"^probe\.transfer's cifar100 must hold cifar-100-python/"):
        preflighted(transferred)
