"""The config: flat form, cell key, and one-line refusals of wrong input.

Run: python -m pytest tests/unit/config/test_config.py
"""

import dataclasses
import json
import re

import pytest

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig, OptimConfig, TrainConfig
from jepa_train.config.flat import cell_fields, cell_key, flatten, group_key, parse, unflatten
from jepa_train.config.presets import DIGITS
from jepa_train.methods import LeJEPA, RectifiedLpJEPA

RECTIFIED = TrainConfig(method=RectifiedLpJEPA(p=0.5, mu=-1.0), data=DataConfig(name="cifar10", path="/here"), seed=3)


@pytest.mark.parametrize("config", [TrainConfig(), RECTIFIED])
def test_flat_form_is_complete_and_round_trips(config: TrainConfig):
    flat = json.loads(json.dumps(flatten(config)))
    assert unflatten(flat) == config
    sections = [getattr(config, field.name) for field in dataclasses.fields(config)]
    inner = sum(len(dataclasses.fields(s)) for s in sections if dataclasses.is_dataclass(s))
    scalars = sum(not dataclasses.is_dataclass(s) for s in sections)
    assert len(flat) == inner + scalars + 1  # the method's name besides


def test_assignments_are_read_by_the_type_of_their_field():
    words = ["method=rectified_lpjepa", "method.mu=-1", "epochs=7", "model.small_stem=false", "optim.lr=1e-3"]
    config = unflatten(parse(words, base=TrainConfig()))
    assert config.method == RectifiedLpJEPA(mu=-1.0)
    assert (config.epochs, config.model.small_stem, config.optim.lr) == (7, False, 0.001)


def test_a_share_of_nonzeros_sets_mu_and_names_a_cell_of_its_own():
    words = ["method=rectified_lpjepa", "method.p=2", "method.nonzero_target=0.1"]
    config = unflatten(parse(words, base=TrainConfig()))
    assert config.method == RectifiedLpJEPA(p=2.0, nonzero_target=0.1)
    assert config.method.mu == -1.281552  # the normal distribution's quantile at 0.1
    by_mu = dataclasses.replace(config, method=RectifiedLpJEPA(p=2.0, mu=-1.281552))
    assert cell_key(config) != cell_key(by_mu), "a table would have both under one share"
    assert group_key(config) != group_key(by_mu)
    assert unflatten(flatten(config)) == config
    assert unflatten({"method.p": 1.0}, base=config).method == RectifiedLpJEPA(p=1.0, nonzero_target=0.1)
    assert unflatten({"method.nonzero_target": 0.1}, base=by_mu) == config, "in place of the base's mu"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"mu": -1.0},
            "method.mu follows from nonzero_target=0.1, which makes it -1.13804, got -1; set one of the two",
        ),
        ({"mu": 0.0}, "method.mu follows from another field, which makes it -1.138044, got 0.0; set one of the two"),
        ({"target": "gg"}, "method.nonzero_target needs the rectified target, of which it is a share, got target='gg'"),
        (
            {"nonzero_target": 1.0},
            "method.nonzero_target must lie in [1e-9, 1), got 1.0; 0 leaves it to mu",
        ),
    ],
)
def test_a_share_of_nonzeros_that_cannot_set_mu_is_refused(fields: dict, message: str):
    flat = {f"method.{name}": value for name, value in ({"nonzero_target": 0.1} | fields).items()}
    with pytest.raises(ConfigError, match="^" + re.escape(message)):
        unflatten({"method": "rectified_lpjepa", **flat})


def test_another_method_starts_from_its_own_defaults_but_the_same_method_keeps_the_base():
    base = TrainConfig(method=LeJEPA(lamb=0.2))
    assert unflatten({"epochs": 1}, base=base).method == LeJEPA(lamb=0.2)
    assert unflatten({"method": "rectified_lpjepa"}, base=base).method == RectifiedLpJEPA()


def test_cell_key_ignores_paths_and_spelling_but_nothing_that_affects_the_result():
    base = TrainConfig()
    moved = dataclasses.replace(base, data=dataclasses.replace(base.data, path="/elsewhere", download=True))
    assert cell_key(moved) == cell_key(base)
    assert cell_key(TrainConfig(optim=OptimConfig(lr=1))) == cell_key(TrainConfig(optim=OptimConfig(lr=1.0)))
    changed = {"method.lamb": 0.3, "data.fingerprint": "abc", "epochs": 3, "seed": 1, "views.flip": 0.1}
    keys = {cell_key(unflatten({key: value}, base=base)) for key, value in changed.items()}
    assert len(keys | {cell_key(base)}) == len(changed) + 1
    outside = "data.path data.download data.on_corrupt model.weights model.channels_last model.compile"
    outside += " probe.protocols probe.transfer snapshot_epochs"
    assert flatten(RECTIFIED).keys() - cell_fields(RECTIFIED).keys() == {*outside.split()}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["epochs"], "epochs is not an assignment"),
        (["epochs=ten"], "epochs must be a whole number, got 'ten'"),
        (["epochs=" + "1" * 5000], f"epochs must be a whole number, got '{'1' * 76}..."),
        ({"method.lamb": 10**5000}, "method.lamb must be below 2**63, got a number of 16610 bits"),
        (["epochs=1", "epochs=2"], "epochs is given twice"),
        (["model.small_stem=yes"], "model.small_stem must be true or false, got 'yes'"),
        ({"method.views": 2}, "method.views is not a field of the config; views has the fields views.blur, "),
        ({"method.lamda": 0.1}, "method.lamda is not a field of the config; did you mean 'method.lamb'?"),
        ({"method.lamb": "0.1"}, "method.lamb must be a number, got '0.1' (str)"),
        ({"epochs": 1.5}, "epochs must be a whole number, got 1.5 (float)"),
        ({"optim.lr": float("nan")}, "optim.lr must be a finite number, got nan"),
        ({"precision": "bf61"}, "precision must be one of fp32, bf16, fp16, got 'bf61'; did you mean 'bf16'?"),
        ({"method": "lejapa"}, "method must be a known method, got 'lejapa'; did you mean 'lejepa'?"),
        ({"data.name": "cifar01"}, "data.name must be a known dataset, got 'cifar01'; did you mean 'cifar10'?"),
        ({"views.hue": 0.6}, "views.hue is a jitter strength in [0, 0.5], got 0.6; 0 turns it off"),
        ({"optim.lr": -1.0}, "optim.lr must be positive, got -1.0; try 1e-3"),
        (
            {"optim.name": "lars", "optim.decay_all": True},
            "optim.decay_all must be false for lars, got true; LARS leaves",
        ),
        (
            {"method": "rectified_lpjepa", "method.lamb": 0.1},
            "method.lamb is not a field of method rectified_lpjepa, but of ",
        ),
        ({"model.swa_start": -1}, "model.swa_start must not be negative, got -1; 0 means no averaging"),
        ({"model.swa_start": 9, "epochs": 8}, "model.swa_start must not exceed the 8 epochs, got 9; lower it"),
        (
            {"model.swa_start": 2, "model.swa_decay": 0.9},
            "model.swa_start must be 0 where swa_decay is positive",
        ),
        ({"optim.swa_lr": 1e-4}, "optim.swa_lr must be 0 where model.swa_start is 0, got 0.0001; set model.swa_start"),
        ({"optim.swa_lr": -1.0}, "optim.swa_lr must not be negative, got -1.0; 0 means that the schedule goes on"),
        ({"optim.swa_anneal_epochs": -1}, "optim.swa_anneal_epochs must not be negative, got -1; 0 sets "),
        (
            {"optim.swa_anneal_epochs": 3},
            "optim.swa_anneal_epochs must be 10 where swa_lr is 0, got 3; set optim.swa_lr",
        ),
        ({"snapshot_epochs": -1}, "snapshot_epochs must not be negative, got -1; 0 keeps none"),
        (
            {"method.nonzero_target": 0.1},
            "method.nonzero_target is not a field of method lejepa, but of rectified_lpjepa; leave it out, or set "
            "method=rectified_lpjepa",
        ),
        ({"views": 3}, "views is not a field of the config"),
    ],
)
def test_wrong_values_are_refused_in_one_line(given: dict | list[str], expected: str):
    with pytest.raises(ConfigError) as caught:
        unflatten(parse(given, base=TrainConfig()) if isinstance(given, list) else given)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_a_section_of_another_type_is_refused_in_one_short_line():
    with pytest.raises(ValueError, match=r"^views must be ViewsConfig\(...\), got DataConfig\(.{,150}$"):
        dataclasses.replace(DIGITS, views=DataConfig())
