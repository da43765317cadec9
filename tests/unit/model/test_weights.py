"""Initial weights: files of many forms against timm's own loading, reports, identity in the cell key, refusals.

Run: python -m pytest tests/unit/model/test_weights.py
"""

import argparse
import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from jepa_train.base.errors import ConfigError
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config import ModelConfig, TrainConfig
from jepa_train.config.flat import cell_key
from jepa_train.config.presets import DIGITS
from jepa_train.model.network import build_encoder, build_network, weights_report
from jepa_train.model.weights import planned_weights
from jepa_train.storage.storage import StoragePath
from jepa_train.train import train
from jepa_train.train.preflight import preflight

State = dict[str, Tensor]
RESNET = dataclasses.replace(DIGITS, model=dataclasses.replace(DIGITS.model, encoder="test_resnet", small_stem=False))


def model_of(encoder: str, seed: int = 7, **options: Any) -> nn.Module:
    """A model of timm with its classifier; its numbers are those of no run."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(encoder, **options)


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": x for name, x in state.items()}


def with_weights(file: Path | str, config: TrainConfig = RESNET, **model: Any) -> TrainConfig:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, weights=str(file), **model))


def other(state: State) -> State:
    return {name: x + 1 for name, x in state.items()}


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": dict,
    "state_dict, DDP": lambda state: {
        "state_dict": prefixed("module.", state),
        "epoch": 3,
        "args": argparse.Namespace(),
    },
    "encoder of two": lambda state: {
        "model": prefixed("encoder.", state) | prefixed("decoder.", {"a.weight": torch.ones(2)})
    },
    "teacher": lambda state: {
        "student": prefixed("module.backbone.", other(state)),
        "teacher": prefixed("backbone.", state),
    },
    "ema": lambda state: {"state_dict": other(state), "state_dict_ema": state},
    "momentum": lambda state: prefixed("module.base_encoder.", state) | prefixed("queue.", {"x": torch.ones(3)}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_any_common_form_loads_whole(form: str, tmp_path: Path) -> None:
    expected = model_of("test_resnet").state_dict()
    torch.save(FORMS[form](expected), tmp_path / "weights.pth")
    config = preflight(with_weights(tmp_path / "weights.pth"))
    found = build_network(config, 10).encoder.state_dict()
    assert found
    for name, x in found.items():
        assert torch.equal(x, expected[name]), name


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("test_resnet", {}),
        ("test_vit", {"img_size": 32, "dynamic_img_size": True}),
        ("test_vit", {"img_size": 32, "patch_size": 4, "dynamic_img_size": True}),
        ("test_convnext", {}),
        ("test_resnet", {"in_chans": 1}),
        ("test_resnet", {"in_chans": 5}),
        ("test_vit", {"img_size": 32, "dynamic_img_size": True, "in_chans": 2}),
    ],
)
def test_position_embeddings_patches_and_channels_adapt_as_timms_own_loading_does(
    encoder: str, options: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(model_of(encoder).state_dict(), file)
    overlay = {"file": str(file), "hf_hub_id": None, "url": ""}
    theirs = timm.create_model(encoder, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **options)
    views = dataclasses.replace(DIGITS.views, global_size=32)
    patch, data = options.get("patch_size", 0), dataclasses.replace(DIGITS.data, channels=options.get("in_chans", 3))
    config = with_weights(file, dataclasses.replace(RESNET, views=views, data=data), encoder=encoder, patch_size=patch)
    ours = build_network(config, 10).encoder.state_dict()
    for name, x in theirs.state_dict().items():
        assert torch.equal(ours[name], x), name


def test_only_the_encoder_of_a_finished_run_is_taken_by_its_file_or_folder(tmp_path: Path) -> None:
    """Its projector has names that a Sequential encoder has too."""
    network = build_network(dataclasses.replace(RESNET, seed=5), 10)
    with Checkpoints(tmp_path / "run", RESNET) as saves:
        saves.finish(network.state_dict(), [{"epoch": 1.0}])
    for place in (tmp_path / "run" / "final.pt", tmp_path / "run"):
        started = build_network(with_weights(place), 10)
        assert torch.equal(started.encoder.conv1[0].weight, network.encoder.conv1[0].weight)
        assert not torch.equal(started.projector[0].weight, network.projector[0].weight)


def test_all_but_the_encoder_is_as_in_a_random_start(tmp_path: Path) -> None:
    torch.save(model_of("test_resnet").state_dict(), tmp_path / "weights.pth")
    plain, started = build_network(RESNET, 10), build_network(with_weights(tmp_path / "weights.pth"), 10)
    assert torch.equal(plain.projector[0].weight, started.projector[0].weight)
    assert not torch.equal(plain.encoder.conv1[0].weight, started.encoder.conv1[0].weight)


def test_the_report_names_what_was_not_loaded_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = model_of("test_resnet").state_dict()
    gone = state.pop("bn1.bias")
    state["bn1.weight"] = torch.ones(len(gone) + 1)
    torch.save(state, tmp_path / "weights.pth")
    config = preflight(with_weights(tmp_path / "weights.pth"))
    report = weights_report(config.model, 12, 3)
    number = len(build_encoder(RESNET.model, 12).state_dict())
    expected = f"{number - 2} of {number} tensors loaded (weights)"
    assert report == f"{expected}; missing: bn1.bias; of another shape: bn1.weight; unused: fc.bias, fc.weight"
    caplog.set_level("INFO")
    build_network(config, 10)
    assert caplog.messages == [f"model.weights: {report}"]


def test_a_user_encoder_and_torchvisions_take_weights_by_their_names(tmp_path: Path) -> None:
    config = dataclasses.replace(RESNET, model=ModelConfig(encoder="torchvision.models.shufflenet_v2_x0_5"))
    expected = build_network(dataclasses.replace(config, seed=3), 10).encoder.state_dict()
    torch.save({"model": prefixed("module.", expected)}, tmp_path / "w.bin")
    found = build_network(with_weights(tmp_path / "w.bin", config), 10).encoder.state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in found.items())


def test_the_cell_key_holds_the_tag_or_the_content_and_no_path(tmp_path: Path) -> None:
    state = model_of("test_resnet").state_dict()
    torch.save(state, tmp_path / "a.pth")
    shutil.copy(tmp_path / "a.pth", tmp_path / "b.pth")
    torch.save(other(state), tmp_path / "c.pth")
    plain = preflight(RESNET)
    a, b, c = (preflight(with_weights(tmp_path / name)) for name in ("a.pth", "b.pth", "c.pth"))
    tag = preflight(with_weights("r160_in1k"))
    assert tag.model.weights_id == "r160_in1k"
    assert len(a.model.weights_id) == 16
    assert cell_key(a) == cell_key(b)
    assert len({cell_key(config) for config in (plain, a, c, tag)}) == 4
    assert cell_key(plain) == cell_key(RESNET)


def test_a_run_without_preflight_is_another_cell_for_another_file_too(tmp_path: Path) -> None:
    for seed in (7, 8):
        torch.save(model_of("test_resnet", seed=seed).state_dict(), tmp_path / f"{seed}.pth")
    untrained = [dataclasses.replace(with_weights(tmp_path / f"{seed}.pth"), epochs=0) for seed in (7, 8)]
    train(untrained[0], checkpoints=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"of another cell.*model\.weights_id"):
        train(untrained[1], checkpoints=tmp_path / "run")


def test_a_file_is_read_once_for_all_cells_of_a_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(model_of("test_resnet").state_dict(), tmp_path / "weights.pth")
    read, reads = StoragePath.read_bytes, []
    monkeypatch.setattr(StoragePath, "read_bytes", lambda place: reads.append(place) or read(place))
    for dim in (16, 32, 48):
        preflight(with_weights(tmp_path / "weights.pth", projector_dim=dim))
    assert len(reads) == 1


def test_a_worker_refuses_a_file_that_is_not_the_planned_one(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(model_of("test_resnet").state_dict(), file)
    planned = preflight(with_weights(file))
    torch.save(model_of("test_resnet", seed=8).state_dict(), file)
    with pytest.raises(
        ConfigError, match=r"^model.weights_id must name the content of model.weights='\S+weights.pth', got"
    ):
        build_network(planned, 10)
    with pytest.raises(
        ConfigError,
        match=r"^model.weights_id must name the content .*; restore it, or leave model.weights_id out to use",
    ):
        planned_weights(planned.model)


def test_a_tag_is_downloaded_at_the_start_of_a_run_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    create, asked = timm.create_model, []

    def offline(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
        if not pretrained:
            return create(name, **options)
        asked.append(name)
        if len(asked) == 1:
            raise FileNotFoundError("An error happened while trying\nto locate the file")  # as the hub's error is
        return model_of("test_resnet")

    monkeypatch.setattr(timm, "create_model", offline)
    config = preflight(with_weights("r160_in1k"))
    assert asked == []
    with pytest.raises(ConfigError) as raised:
        build_network(config, 10)
    assert str(raised.value) == (
        "model.weights must be a tag that can be downloaded, got 'r160_in1k' of test_resnet (An error happened while "
        "trying to locate the file); connect to the internet once, or name a file"
    )
    weight = build_network(config, 10).encoder.conv1[0].weight
    assert asked == ["test_resnet.r160_in1k"] * 2
    assert torch.equal(weight, model_of("test_resnet").conv1[0].weight)


def saved(file: Path, content: object) -> None:
    if file.name == "run":
        file.mkdir()
        file /= "step-000000003.pt"
    if file.suffix == ".safetensors":
        safetensors.torch.save_file({"a": torch.ones(2)}, file) if content else file.write_bytes(b"nothing")
    else:
        torch.save(content, file)


BAD = {
    "a1": (
        None,
        {},
        "must be a file, with a / in its path, or a pretrained tag of timm's test_resnet, got 'a1'; choose one",
    ),
    "a1_in1": (
        None,
        {"encoder": "resnet18"},
        "or a pretrained tag of timm's resnet18, got 'a1_in1'; did you mean",
    ),
    "none": (None, {"encoder": "resnet18_"}, "model.encoder must be a timm model"),
    "tag": (
        None,
        {"encoder": "torchvision.models.resnet18"},
        "tag of timm's torchvision.models.resnet18, got 'tag'; it has none",
    ),
    "{here}/gone.pt": (
        None,
        {},
        r"must be a file of weights, got \S+gone.pt, where there is no file; correct the path",
    ),
    "{here}/run/": ({}, {}, r"must be a file of weights, got \S+, a folder without final.pt or model.safetensors"),
    "ftp://host/x.pt": (None, {}, "must be a path or begin with s3://bucket"),
    "{here}/no.pt": (
        {"epoch": 3, "config": {"a": 1}},
        {},
        r"must be a file of tensors by name, got \S+no.pt, which has",
    ),
    "{here}/list.pt": ([torch.ones(2)], {}, r"must be a file of tensors by name, got \S+list.pt, which has none"),
    "{here}/module.pt": (
        nn.Linear(2, 2),
        {},
        r"model.weights \S+module.pt cannot be read \(UnpicklingError: .*\); save the network's state_dict\(\) alone",
    ),
    "{here}/numpy.pt": (
        {"model": {"a": torch.ones(2)}, "best": np.float64(0.5)},
        {},
        r"numpy.pt cannot be read \(UnpicklingError: .*\); save the network's state_dict\(\) alone, or as safetensors$",
    ),
    "{here}/bad.safetensors": ("", {}, r"model.weights \S+bad.safetensors cannot be read \(SafetensorError"),
    "{here}/a.safetensors": (
        "x",
        {},
        "must fit test_resnet, got .*, of which nothing can be loaded: it has a, and the enc",
    ),
}


@pytest.mark.parametrize("weights", BAD)
def test_wrong_weights_are_refused_in_one_line_before_anything_starts(weights: str, tmp_path: Path) -> None:
    content, model, message = BAD[weights]
    place = weights.format(here=tmp_path)
    if content is not None:
        saved(Path(place), content)
    with pytest.raises(ConfigError, match=message) as raised:
        preflight(with_weights(place, **model))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(("has", "set_to", "remedy"), [(0, 2, 0), (2, 0, 2), (1, 3, 1)])
def test_position_embeddings_with_other_register_tokens_are_refused_with_the_number_to_set(
    has: int, set_to: int, remedy: int, tmp_path: Path
) -> None:
    torch.save(model_of("test_vit", reg_tokens=has).state_dict(), tmp_path / "vit.pth")
    views = dataclasses.replace(DIGITS.views, global_size=32)
    config = with_weights(
        tmp_path / "vit.pth", dataclasses.replace(RESNET, views=views), encoder="test_vit", register_tokens=set_to
    )
    with pytest.raises(ConfigError, match=re.escape("model.weights must fit test_vit")) as raised:
        preflight(config)
    expected = f"it has {has} register tokens and the encoder {set_to}, so set model.register_tokens={remedy}"
    assert str(raised.value).endswith(expected)
    model = dataclasses.replace(config.model, register_tokens=remedy)
    assert weights_report(model, 32, 3).endswith("tensors loaded (weights); unused: head.bias, head.weight")
