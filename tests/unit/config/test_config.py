"""The config: strict, flat, hashable."""

import dataclasses
import json
import subprocess
import sys

import pytest

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig, OptimConfig, ProbeConfig, TrainConfig
from jepa_train.config.flat import cell_fields, cell_key, flatten, parse, unflatten
from jepa_train.config.presets import DIGITS
from jepa_train.methods import METHODS, LeJEPA, RectifiedLpJEPA
from jepa_train.storage.paths import results_dir

RECTIFIED = TrainConfig(method=RectifiedLpJEPA(p=0.5, mu=-1.0), data=DataConfig(name="cifar10", path="/here"), seed=3)


@pytest.mark.parametrize("config", [TrainConfig(), RECTIFIED])
def test_flat_form_is_complete_and_round_trips(config: TrainConfig):
    flat = json.loads(json.dumps(flatten(config)))
    assert unflatten(flat) == config
    sections = [getattr(config, field.name) for field in dataclasses.fields(config)]
    inner = sum(len(dataclasses.fields(s)) for s in sections if dataclasses.is_dataclass(s))
    scalars = sum(not dataclasses.is_dataclass(s) for s in sections)
    assert len(flat) == inner + scalars + 1  # the method's name besides


def test_words_of_the_command_line_are_read_by_type():
    words = ["method=rectified_lpjepa", "method.mu=-1", "epochs=7", "model.small_stem=false", "optim.lr=1e-3"]
    config = unflatten(parse(words, base=TrainConfig()))
    assert config.method == RectifiedLpJEPA(mu=-1.0)
    assert (config.epochs, config.model.small_stem, config.optim.lr) == (7, False, 0.001)


def test_another_method_starts_from_its_own_defaults_but_the_same_method_keeps_the_base():
    base = TrainConfig(method=LeJEPA(lamb=0.2))
    assert unflatten({"epochs": 1}, base=base).method == LeJEPA(lamb=0.2)
    assert unflatten({"method": "rectified_lpjepa"}, base=base).method == RectifiedLpJEPA()


def test_cell_key_ignores_places_and_spelling_but_nothing_that_decides_the_result():
    base = TrainConfig()
    moved = dataclasses.replace(base, data=dataclasses.replace(base.data, path="/elsewhere", download=True))
    assert cell_key(moved) == cell_key(base)
    assert cell_key(TrainConfig(optim=OptimConfig(lr=1))) == cell_key(TrainConfig(optim=OptimConfig(lr=1.0)))
    changed = {"method.lamb": 0.3, "data.fingerprint": "abc", "epochs": 3, "seed": 1, "views.flip": 0.1}
    keys = {cell_key(unflatten({key: value}, base=base)) for key, value in changed.items()}
    assert len(keys | {cell_key(base)}) == len(changed) + 1


def test_cell_key_is_the_same_in_another_process():
    code = "from jepa_train.config import *; from jepa_train.config.flat import *; print(cell_key(TrainConfig(seed=5)))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == cell_key(TrainConfig(seed=5))


def test_cell_fields_leave_out_only_what_decides_no_result():
    places = {"data.path", "data.download", "data.on_corrupt"}
    speed = {"model.channels_last", "model.compile"}
    assert set(flatten(RECTIFIED)) - set(cell_fields(RECTIFIED)) == places | speed | {
        "probe.protocols",
        "probe.transfer",
    }


@pytest.mark.parametrize(
    ("flat", "expected"),
    [
        ({"method.lamda": 0.1}, "method.lamda is not a field of the config; did you mean 'method.lamb'?"),
        ({"method.lamb": "0.1"}, "method.lamb must be a number, got '0.1' (str)"),
        ({"method.lamb": True}, "method.lamb must be a number, got True (bool)"),
        ({"epochs": 1.5}, "epochs must be a whole number, got 1.5 (float)"),
        ({"optim.lr": float("nan")}, "optim.lr must be a finite number, got nan"),
        ({"precision": "bf61"}, "precision must be one of fp32, bf16, got 'bf61'; did you mean 'bf16'?"),
        ({"method": "lejapa"}, "method must be a known method, got 'lejapa'; did you mean 'lejepa'?"),
        ({"data.name": "cifar01"}, "data.name must be a known dataset, got 'cifar01'; did you mean 'cifar10'?"),
        ({"views.flip": 1.5}, "views.flip is a probability in [0, 1], got 1.5; 0 turns it off"),
        ({"method": "rectified_lpjepa", "method.lamb": 0.1}, "method.lamb is not a field of the config"),
        ({"method": ["lejepa"]}, "method must be a known method, got ['lejepa']; did you mean 'lejepa'?"),
        ({"precision": ["fp32"]}, "precision must be one of fp32, bf16, got ['fp32']"),
        ({3: 0.1}, "3 is not a field of the config"),
        ({"views": 3}, "views is not a field of the config"),
    ],
)
def test_bad_input_is_answered_in_one_line(flat: dict, expected: str):
    with pytest.raises(ConfigError) as caught:
        unflatten(flat)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"method.lamb": 1.5}, ("method.lamb", "[0, 1]", "1.5")),
        ({"method": "rectified_lpjepa", "method.p": 0.0}, ("method.p", "positive", "0.0")),
        ({"method": "rectified_lpjepa", "views.num_global": 3}, ("2", "3")),
        ({"optim.lr": -1.0}, ("optim.lr", "positive", "-1.0")),
        ({"optim.final_lr_frac": 2.0}, ("optim.final_lr_frac", "[0, 1]", "2.0")),
    ],
)
def test_values_out_of_range_name_key_rule_and_value(flat: dict, words: tuple[str, ...]):
    with pytest.raises(ConfigError) as caught:
        unflatten(flat)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["epochs"], "epochs is not an assignment"),
        (["epochs=ten"], "epochs must be a whole number, got 'ten'"),
        (["epochs=1", "epochs=2"], "epochs is given twice"),
        (["model.small_stem=yes"], "model.small_stem must be true or false, got 'yes'"),
    ],
)
def test_bad_words_are_answered_in_one_line(words: list[str], expected: str):
    with pytest.raises(ConfigError, match=expected):
        unflatten(parse(words, base=TrainConfig()))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_checks_its_types_when_built_directly(name: str):
    method = METHODS[name]()
    for field in dataclasses.fields(method):
        with pytest.raises(ValueError, match=field.name):
            dataclasses.replace(method, **{field.name: object()})


A_METHOD = "LeJEPA(...) or RectifiedLpJEPA(...) or VICReg(...) or SimCLR(...) or NCL(...)"


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        ("method", "lejepa", f"method must be {A_METHOD}, got 'lejepa' (str)"),
        ("method", LeJEPA, f"method must be {A_METHOD}, got <class"),
        ("method", None, f"method must be {A_METHOD}, got None (NoneType)"),
        ("data", "digits", "data must be DataConfig(...), got 'digits' (str)"),
        ("views", DataConfig(), "views must be ViewsConfig(...), got DataConfig(name='digits', "),
        ("optim", ProbeConfig(), "optim must be OptimConfig(...), got ProbeConfig("),
        ("epochs", OptimConfig(), "epochs must be a whole number, got OptimConfig("),
    ],
)
def test_a_section_of_another_type_is_answered_in_one_line(section: str, value: object, expected: str):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is checked to the letter below)
        dataclasses.replace(DIGITS, **{section: value})
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_the_defaults_alone_suit_digits():
    """A 2 mirrored is no 2, and there is no colour to drop: nobody who writes TrainConfig() asked for either."""
    config = TrainConfig()
    assert config.data.name == "digits"
    assert (config.views, config.data.image_size) == (DIGITS.views, DIGITS.data.image_size)
    assert {config.views.flip, config.views.grayscale, config.views.blur, config.views.solarize} == {0}


def test_an_empty_results_variable_counts_as_unset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JEPA_RESULTS", "")
    assert results_dir() == tmp_path / "results"
