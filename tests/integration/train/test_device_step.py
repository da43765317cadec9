"""The device part of a training step on a GPU that computes nothing: the same operations in every step, no copy to the
device, no read of it, no draw on the host, and a bounded number of launches.

Run: python -m pytest tests/integration/train/test_device_step.py
"""

import dataclasses
import re
from typing import Any

import pytest
import torch
from phantom import Audit, phantom_gpu, phantom_ranks

from jepa_train.base.seeds import generator
from jepa_train.config import TrainConfig
from jepa_train.config.flat import unflatten
from jepa_train.config.presets import DIGITS, PRESETS
from jepa_train.data import Splits
from jepa_train.data.base import Images
from jepa_train.data.pictures import LineRanges
from jepa_train.methods import METHODS, VICReg
from jepa_train.methods.base import Objective, Step
from jepa_train.train.trainer import Trainer

# a small encoder in place of each family's
ENCODERS = {"resnet": "test_resnet", "convnext": "test_convnext", "vit": "test_vit", "torchvision": "test_resnet"}
PAIR = {"views.num_local": 0, "views.num_global": 2}
# the other presets are the same but for sizes
RECIPES = (
    "cifar10",
    "lejepa_imagenet1k_vit_l14",
    "lejepa_guide",
    "rectified_lpjepa_cifar100_resnet18",
    "rectified_lpjepa_imagenet100_convnext_small",
    "ncl_cifar100_resnet18",
)
FEATURES: dict[str, dict[str, Any]] = {
    "local views at another resolution": {"views.num_local": 2, "data.local_image_size": 16},
    "EMA and predictor": {"model.swa_decay": 0.99, "model.predictor": True},
    "mean of epochs": {"model.swa_start": 1, "optim.swa_lr": 1e-3},
    "fp16": {"precision": "fp16"},
    "bf16 with LARS": {"precision": "bf16", "optim.name": "lars"},
    "blur": {"views.blur": 0.5},
    "batch norm per view": {"model.batch_norm": "per_view"},
    "dropped paths": {"model.encoder": "test_vit", "model.patch_size": 4, "model.drop_path": 0.2},
}
CASES = {
    **{f"preset {name}": PRESETS[name] for name in RECIPES},
    **{f"method {name}": unflatten({"method": name} | PAIR, base=DIGITS) for name in METHODS},
    **{name: unflatten(words, base=DIGITS) for name, words in FEATURES.items()},
}
# ResNet-18 on 512 views of 32 px in bf16, and the digits preset: launches of a step
LAUNCHES = {
    "lejepa": ({"precision": "bf16"}, PRESETS["cifar10"], 400),
    "rectified_lpjepa": ({"precision": "bf16"}, PRESETS["rectified_lpjepa_cifar100_resnet18"], 420),
    "digits": ({}, DIGITS, 280),
}


def small(config: TrainConfig) -> TrainConfig:
    """The same step on few images, with a small encoder."""
    family = re.match("resnet|vit|convnext|torchvision", config.model.encoder)
    words: dict[str, Any] = {"global_batch": 8, "epochs": 4}
    if family:
        words["model.encoder"] = ENCODERS[family[0]]
    if (patch := re.search("_patch([0-9]+)", config.model.encoder)) and not config.model.patch_size:
        words["model.patch_size"] = int(patch[1])
    return unflatten(words, base=config)


def noise(config: TrainConfig) -> Splits:
    """Images for eight steps in an epoch."""
    count, data = 8 * config.global_batch, config.data
    labels = torch.arange(count) % 10

    def squares(size: int) -> Images:
        pixels = torch.zeros(count, 3, size, size, dtype=torch.uint8)
        return Images(pixels=pixels, rows=torch.arange(count), labels=labels)

    images = squares(data.image_size)
    if data.fit == "whole":
        lengths = torch.randint(data.image_size, 2 * data.image_size, (count,), generator=generator("lengths"))
        lines = torch.zeros(int(lengths.sum()), 3, data.image_size, dtype=torch.uint8)
        ranges = LineRanges(lengths * (1 - 2 * (torch.arange(count) % 2)))
        images = Images(pixels=lines, rows=torch.arange(count), labels=labels, ranges=ranges)
    if data.local_image_size:
        images = dataclasses.replace(images, local=squares(data.local_image_size))
    return Splits(train=images, val=images, test=images, classes=tuple("0123456789"), skipped=0)


def step_twice(config: TrainConfig, gpu: Audit) -> tuple[list[str], list[str]]:
    """Traces of two steps, after one in which all state is made. The last one stays in the audit."""
    trainer = Trainer(config, noise(config))
    traces = []
    for _ in range(3):
        gpu.clear()
        trainer.train_step()
        traces.append(gpu.trace)
    assert trainer._device_step.obstacle() == ""
    return traces[1], traces[2]


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_a_step_can_be_replayed(config: TrainConfig) -> None:
    with phantom_gpu() as gpu:
        first, second = step_twice(small(config), gpu)
    assert gpu.faults == []
    assert len(first) > 50
    assert first == second


def test_the_audit_sees_what_a_graph_would_freeze_or_refuse() -> None:
    """The decomposition waits for the device, and an encoder's own code copies to it."""
    singular = {"method": "rectified_lpjepa", "method.slice_kind": "svd"}
    with phantom_gpu() as gpu:
        step_twice(small(unflatten(singular | PAIR, base=DIGITS)), gpu)
    assert any(fault.startswith("read of the device: _linalg_eigh") for fault in gpu.faults)


def test_the_audit_sees_a_draw_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = VICReg.__call__

    def drawn(self: VICReg, z: torch.Tensor, step: Step) -> Objective:
        return whole(self, z * float(torch.rand(())), step)

    monkeypatch.setattr(VICReg, "__call__", drawn)
    with phantom_gpu() as gpu:
        step_twice(small(unflatten({"method": "vicreg"} | PAIR, base=DIGITS)), gpu)
    assert any(fault.startswith("random draw on the host: rand") for fault in gpu.faults)


def test_a_method_that_reads_the_number_of_the_step_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = VICReg.__call__
    monkeypatch.setattr(VICReg, "__call__", lambda self, z, step: whole(self, (1 + step.number) * z, step))
    config = small(unflatten({"method": "vicreg"} | PAIR, base=DIGITS))
    trainer = Trainer(config, noise(config))
    trainer.train_step()
    assert "method vicreg reads Step.number" in trainer._device_step.obstacle()


@pytest.mark.parametrize(("words", "preset", "most"), LAUNCHES.values(), ids=LAUNCHES)
def test_launches_of_a_step(words: dict[str, Any], preset: TrainConfig, most: int) -> None:
    config = unflatten(words, base=preset)
    with phantom_gpu() as gpu:
        step_twice(config, gpu)
        alone = gpu.total
        assert alone <= most, gpu.launches
        with phantom_ranks(2):
            step_twice(config, gpu)
    assert gpu.total <= 1.35 * alone, gpu.launches
