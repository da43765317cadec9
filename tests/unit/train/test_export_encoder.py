"""Export of an encoder: the lines of its card load it, in timm or without, and give the features of our network.

Run: python -m pytest tests/unit/train/test_export_encoder.py
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from jepa_train.__main__ import main
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config import ModelConfig, TrainConfig
from jepa_train.config.flat import cell_key
from jepa_train.config.presets import DIGITS
from jepa_train.model.network import Network, build_network
from jepa_train.model.weights import planned_weights
from jepa_train.train import export as module

SIDE = 32
OWN = '''"""An encoder of a user."""
from torch import nn
def flat(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
'''
ENCODERS: dict[str, tuple[str, dict[str, Any], bool]] = {  # name -> encoder, its options, loaded by timm alone
    "five channels": ("test_resnet", {"small_stem": False, "channels": 5}, True),
    "two channels, small stem": ("test_resnet", {"small_stem": True, "channels": 2}, False),
    "resnet": ("test_resnet", {"small_stem": False}, True),
    "vit": ("test_vit", {"patch_size": 8, "register_tokens": 2, "drop_path": 0.1}, True),
    "resnet, small stem": ("test_resnet", {"small_stem": True}, False),
    "convnext, small stem": ("test_convnext", {"small_stem": True}, False),
    "torchvision": ("torchvision.models.shufflenet_v2_x0_5", {"small_stem": True}, False),
    "own": ("exported_encoder.flat", {}, False),
}


def finished(folder: Path, *, channels: int = 3, **model: Any) -> tuple[TrainConfig, Network]:
    """A run's folder with the checkpoint of its end, and its network in evaluation mode."""
    views = dataclasses.replace(DIGITS.views, global_size=SIDE)
    data = dataclasses.replace(DIGITS.data, channels=channels)
    config = dataclasses.replace(DIGITS, data=data, views=views, model=dataclasses.replace(DIGITS.model, **model))
    network = build_network(config, 10)
    for norm in (part for part in network.modules() if hasattr(part, "running_mean")):
        torch.nn.init.uniform_(norm.running_mean)
    with Checkpoints(folder, config) as saves:
        saves.norm = [[4.0] * channels, [-2.0] * channels]
        saves.finish(network.state_dict(), [{"epoch": 3.0, "val/probe_top1": 0.5, "train/loss": 2.0}])
    return config, network.eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_lines_of_the_card_give_the_features_of_the_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, options, by_timm = ENCODERS[name]
    (tmp_path / "exported_encoder.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    _, network = finished(tmp_path / "run", encoder=encoder, **options)
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert (tmp_path / "out" / "config.json").exists() is by_timm
    assert ("local-dir:" in lines) is by_timm
    names: dict[str, Any] = {"images": torch.randn(2, options.get("channels", 3), SIDE, SIDE)}
    exec(lines, names)
    with torch.no_grad():
        torch.testing.assert_close(names["features"], network.encoder(names["images"]), rtol=0, atol=0)
    if by_timm:  # as a start of timm's users, with a classifier and other channels
        timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=10, in_chans=4)


def test_an_export_says_where_it_comes_from_and_has_the_projector_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, network = finished(tmp_path / "run", small_stem=False)
    assert main(["export", str(tmp_path / "run" / "final.pt"), str(tmp_path / "out"), "--projector"]) == 0
    names = ["README.md", "config.json", "model.safetensors", "projector.safetensors"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / name) for name in names]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "run"]
    card = (tmp_path / "out" / "README.md").read_text()
    for row in (f"| cell | {cell_key(config)} |", "| epoch | 3 |", "| val/probe_top1 | 0.5 |", "| data | digits |"):
        assert row in card
    assert "values in [0, 1] (uint8 / 255), normalised with" in card
    assert re.search(r"\| commit \| [0-9a-f]{40}(\+dirty)? \|", card)
    assert "mean [0.5, 0.5, 0.5] and std [0.25, 0.25, 0.25]" in card
    assert "Linear(in_features=96, out_features=256, bias=False)" in card
    loaded = safetensors.torch.load_file(tmp_path / "out" / "projector.safetensors")
    assert torch.equal(loaded["0.weight"], network.projector[0].weight)
    about = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True))
    assert (about["input_size"], about["mean"], about["std"]) == ([3, SIDE, SIDE], [0.5] * 3, [0.25] * 3)


def test_a_card_names_the_initial_weights(tmp_path: Path) -> None:
    finished(tmp_path / "first")
    weights = f"{tmp_path}/first/final.pt"
    found = planned_weights(ModelConfig(encoder=DIGITS.model.encoder, weights=weights))[0]
    finished(tmp_path / "run", weights=weights, weights_id=found)
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| initial weights | final.pt, content {found} |" in card
    assert str(tmp_path / "first") not in card


def test_a_checkpoint_keeps_the_normalisation_for_its_export() -> None:
    assert module._mean_and_std({"norm": [[2.0, 4.0], [-1.0, -0.4]]}) == ([0.5, 0.1], [0.5, 0.25])
    assert module._mean_and_std({}) == ([0.5] * 3, [0.25] * 3)


def test_what_cannot_be_exported_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "run", small_stem=False)
    with Checkpoints(tmp_path / "open", DIGITS) as saves:
        saves.save(1, {}, [])
    torch.save({"a": 1}, tmp_path / "other.pt")
    (tmp_path / "other.safetensors").write_bytes(b"x")
    (tmp_path / "out").mkdir()
    run = str(tmp_path / "run")
    for words, message in (
        (
            [run, str(tmp_path / "out")],
            f"OUT must be a new folder on a disk, got '{tmp_path}/out', which exists; choose",
        ),
        ([run, str(tmp_path / "run" / "final.pt" / "x")], "OUT must be a folder that can be written, got"),
        ([run, "s3://bucket/x"], "OUT must be a new folder on a disk, got 's3://bucket/x'; choose"),
        ([str(tmp_path / "gone"), "new"], f"checkpoint {tmp_path}/gone/final.pt cannot be read: there is no such file"),
        (
            [str(tmp_path / "open" / "step-000000001.pt"), "new"],
            f"checkpoint {tmp_path}/open/step-000000001.pt is of a run",
        ),
        ([str(tmp_path / "other.pt"), "new"], f"checkpoint {tmp_path}/other.pt is none of ours: it names no cell"),
        ([str(tmp_path / "other.safetensors"), "new"], f"checkpoint {tmp_path}/other.safetensors cannot be read ("),
        (["ftp://host/x", "new"], "CHECKPOINT must be a path or begin with s3://bucket"),
    ):
        assert main(["export", *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}"), error
        assert error.count("\n") == 1
    assert not Path("new").exists()
    assert not [*(tmp_path / "out").iterdir()]
