"""Encoders by dotted path: torchvision's models, modules of the user's own, refusals, and the hash of their file.

Run: python -m pytest tests/unit/model/test_own_encoder.py
"""

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from jepa_train.base.errors import ConfigError
from jepa_train.config import ModelConfig, TrainConfig, ViewsConfig
from jepa_train.config.flat import cell_key
from jepa_train.config.presets import DIGITS
from jepa_train.model.network import build_encoder, build_network, feature_widths
from jepa_train.model.own_encoder import source_hash
from jepa_train.train.preflight import preflight
from sweeps.engine.store import code_version

VIEWS = ViewsConfig(num_global=2, global_size=32, num_local=1, local_size=16)
OWN = '''"""Encoders of a user."""
import torch
from torch import nn
class Flat(nn.Module):
    def __init__(self, width=5):
        super().__init__()
        self.width = torch.linspace(1, width, 2)[-1].item()  # a value, which the meta device does not have
        self.linear = nn.Linear(3, int(self.width))
    def forward(self, x):
        if x.shape[-1] < 10:
            raise ZeroDivisionError("too small")
        return self.linear(x.mean((2, 3)))
class Pair(Flat):
    def forward(self, x): return (super().forward(x),) * 2 if self.training else super().forward(x)
class Map(Flat):
    def forward(self, x): return x
def needs_width(width): return Flat(width)
def broken(): return 1 / 0
def bare(): return nn.Sequential(nn.BatchNorm2d(3, affine=False), Flat())
def cumulative(): return nn.Sequential(nn.BatchNorm2d(3, momentum=None), Flat())
def list_of(): return [Flat()]
NUMBER = 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File of the module own_models, which Python finds."""
    file = tmp_path / "own_models.py"
    file.write_text(OWN)
    (tmp_path / "faulty.py").write_text("import torch\nx = torch.nothing\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "inner.py").write_text("import missing_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    importlib.invalidate_caches()
    return file


def config_for(encoder: str, **model: Any) -> TrainConfig:
    config = ModelConfig(encoder=encoder, projector_hidden=24, projector_dim=8, **model)
    return TrainConfig(model=config, views=VIEWS)


def test_an_own_module_trains_at_two_resolutions(own: Path) -> None:  # noqa: ARG001
    state = torch.get_rng_state()
    network = build_network(config_for("own_models.Flat"), num_classes=3)
    assert torch.equal(torch.get_rng_state(), state)
    output = network([torch.randn(2, 4, 3, 32, 32), torch.randn(1, 4, 3, 16, 16)])
    assert (output.features.shape, output.z.shape) == ((3, 4, 5), (3, 4, 8))


@pytest.mark.parametrize(
    ("encoder", "option", "rule"),
    [
        (
            "no_such.f",
            {},
            "model.encoder must be a timm model, torchvision.models.NAME or a function's path",
        ),
        (
            "resnet18.a1_in1k",
            {},
            "model.encoder must be a timm model, torchvision.models.NAME or a function's path",
        ),
        (
            "pack.no.f",
            {},
            "model.encoder must be a timm model, torchvision.models.NAME or a function's path",
        ),
        (
            "own_models.Flat2",
            {},
            "model.encoder must name a function or class, got 'own_models.Flat2'; did you mean 'Fl",
        ),
        ("own_models.NUMBER", {}, "model.encoder must name a function or class, got 'own_models.NUMBER'"),
        (
            "own_models.needs_width",
            {},
            "model.encoder must be callable without arguments, got own_models.needs_width (",
        ),
        (
            "own_models.list_of",
            {},
            "model.encoder must return an nn.Module, got own_models.list_of, which returns a li",
        ),
        (
            "own_models.bare",
            {},
            "model.encoder must have batch norms with affine, track_running_stats and a momentum, got",
        ),
        (
            "own_models.cumulative",
            {},
            "model.encoder must have batch norms with affine, track_running_stats and a mome",
        ),
        ("own_models.Flat", {"patch_size": 4}, "model.patch_size must be 0 for own_models.Flat, got 4; it is for timm"),
        (
            "own_models.Flat",
            {"drop_path": 0.1},
            "model.drop_path must be 0 for own_models.Flat, got 0.1; it is for timm",
        ),
        (
            "own_models.Flat",
            {"zero_init_last": False},
            "model.zero_init_last must be true for own_models.Flat, got fals",
        ),
        ("own_models.Map", {}, "views.global_size must fit own_models.Map, got 32 (it gives no vector per image)"),
        ("own_models.Pair", {}, "views.global_size must fit own_models.Pair, got 32 ('tuple' object has no attribute"),
        (
            "torchvision.models.resnet19",
            {},
            "model.encoder must be a classifier of torchvision.models, got 'torchvision",
        ),
        (
            "torchvision.models.squeezenet1_0",
            {},
            "model.encoder must have a linear classifier, got torchvision.models.s",
        ),
        ("torchvision.models.mnasnet0_5", {"zero_init_last": False}, "model.zero_init_last must be true for torchv"),
        (
            "resnet18",
            {"encoder_hash": "ab"},
            "model.encoder_hash must name the file of model.encoder=resnet18, got 'ab', but that is ''",
        ),
        (
            "own_models.Flat",
            {"encoder_hash": "ab"},
            "model.encoder_hash must name the file of model.encoder=own_models.Flat, got 'ab', but that",
        ),
    ],
)
@pytest.mark.usefixtures("own")
def test_wrong_encoders_and_options_are_one_line(encoder: str, option: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError) as error:
        feature_widths(config_for(encoder, **option))
    assert str(error.value).startswith(rule)
    assert "\n" not in str(error.value)


def test_a_size_that_an_own_module_refuses_is_one_line(own: Path) -> None:  # noqa: ARG001
    config = dataclasses.replace(config_for("own_models.Flat"), views=dataclasses.replace(VIEWS, local_size=8))
    with pytest.raises(ConfigError, match=r"^views.local_size must fit own_models.Flat, got 8 \(too small\); "):
        feature_widths(config)


@pytest.mark.parametrize(
    ("encoder", "error"),
    [
        ("faulty.f", AttributeError),
        ("pack.inner.f", ModuleNotFoundError),
        ("own_models.broken", ZeroDivisionError),
    ],
)
@pytest.mark.usefixtures("own")
def test_errors_in_the_users_own_code_keep_their_traceback(encoder: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        feature_widths(config_for(encoder))


def test_an_encoder_in_the_sweeps_own_file_is_refused(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(own), raising=False)
    with pytest.raises(ConfigError, match=r"^model.encoder must be in a file of its own, got 'own_models.Flat'"):
        source_hash("own_models.Flat")


def test_the_cell_key_follows_the_file_and_a_changed_file_is_refused(own: Path) -> None:
    config = dataclasses.replace(DIGITS, model=dataclasses.replace(DIGITS.model, encoder="own_models.Flat"))
    before = preflight(config)
    assert len(before.model.encoder_hash) == 16
    assert cell_key(before) != cell_key(config)
    assert preflight(before) == before
    own.write_text(OWN.replace("width=5", "width=6"))
    with pytest.raises(ConfigError, match=r"^model.encoder_hash must name .*own_models.Flat, .* restore it"):
        preflight(before)
    assert cell_key(preflight(config)) != cell_key(before)
    own.write_bytes(OWN.replace("\n", "\r\n").encode())
    assert preflight(config) == before


def test_the_code_version_follows_the_file_and_the_package(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torchvision": "1"}
    monkeypatch.setattr(code_version, "version_of", lambda name: installed.get(name, "0"))

    def code(encoder: str) -> code_version.Code:
        code_version._code.cache_clear()
        return code_version.code_of({"method": "lejepa", "data.name": "digits", "model.encoder": encoder})

    def version(encoder: str) -> str:
        return code(encoder).version

    names = ("own_models.Flat", "torchvision.models.resnet18", "resnet18")
    before = {name: version(name) for name in names}
    assert len({*before.values()}) == 3
    assert len({code(name).own for name in names}) == 3, "cells with the same modules share a version"
    assert version("gone.f") == before["resnet18"]
    own.write_text(OWN.replace("width=5", "width=6"))
    installed["torchvision"] = "2"
    assert [version(name) == before[name] for name in names] == [False, False, True]
    code_version._code.cache_clear()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_resnets_follow_stem_and_initialisation(name: str) -> None:
    weights = {}
    for small, zero in ((True, True), (False, False)):
        config = ModelConfig(encoder=f"torchvision.models.{name}", small_stem=small, zero_init_last=zero)
        encoder = build_encoder(config, 32)
        assert isinstance(encoder.fc, nn.Identity)
        assert isinstance(encoder.maxpool, nn.Identity) == small
        assert encoder.conv1.stride == ((1, 1) if small else (2, 2))
        last = "bn2" if name == "resnet18" else "bn3"
        weights[zero] = [getattr(block, last).weight for stage in (encoder.layer1, encoder.layer4) for block in stage]
    assert all(weight.unique().tolist() == [0] for weight in weights[True])
    assert all(weight.unique().tolist() == [1] for weight in weights[False])


def test_the_other_classifiers_of_torchvision_lose_their_last_layer() -> None:
    assert feature_widths(config_for("torchvision.models.mobilenet_v3_small")).pooled == 1024
