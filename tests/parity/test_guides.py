"""Ten training steps of the guides' presets next to the guides' own formulas in plain PyTorch.

The encoder is a small ResNet in place of ResNet-50 and ResNet-18. Both have the same initial weights, views, slices and
target samples, and then run on their own, in float64, where they agree to 1e-13. Rounding of float32 would grow to 1e-2
of the loss within ten steps.

Run: python -m pytest tests/parity/test_guides.py
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from jepa_train.config import TrainConfig
from jepa_train.config.flat import unflatten
from jepa_train.config.presets import PRESETS
from jepa_train.data import Splits
from jepa_train.data.base import Images
from jepa_train.losses.rgg import RGG
from jepa_train.methods import lejepa, rectified_lpjepa
from jepa_train.train import device_step
from jepa_train.train.trainer import Trainer

STEPS, BATCH = 10, 8


@dataclasses.dataclass
class Record:
    """Draws and results of the training steps of a preset, an entry per step."""

    weights: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # initial ones of the network
    views: list[list[Tensor]] = dataclasses.field(default_factory=list)  # [(V_r, N, 3, s, s) per resolution]
    slices: list[Tensor] = dataclasses.field(default_factory=list)  # (D, K)
    targets: list[Tensor] = dataclasses.field(default_factory=list)  # (V, N, D)
    losses: list[float] = dataclasses.field(default_factory=list)
    gradients: list[dict[str, Tensor]] = dataclasses.field(default_factory=list)


def recorded(function: Callable[..., Any], record: list[Any], change: Callable[[Any], Any] = lambda x: x) -> Any:
    """The function, which also appends its result, changed, to the record, and returns that."""

    def call(*args: Any, **kwargs: Any) -> Any:
        record.append(change(function(*args, **kwargs)))
        return record[-1]

    return call


def noise(size: int) -> Splits:
    """Random images, enough for STEPS batches in the first epoch."""
    count = STEPS * BATCH
    pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels=pixels, rows=torch.arange(count), labels=torch.arange(count) % 2)
    return Splits(train=images, val=images, test=images, classes=("a", "b"), skipped=0)


def preset_steps(config: TrainConfig, patch: pytest.MonkeyPatch) -> Record:
    """Ten steps of the trainer in float64."""
    record = Record()
    double = lambda parts: [part.double() for part in parts]  # noqa: E731
    patch.setattr(device_step, "apply_views", recorded(device_step.apply_views, record.views, double))
    for method in (lejepa, rectified_lpjepa):
        patch.setattr(method, "unit_slices", recorded(method.unit_slices, record.slices))
    sample = RGG.sample
    patch.setattr(RGG, "sample", lambda *args: recorded(sample, record.targets)(*args))
    terms: list[Any] = []
    patch.setattr(device_step, "training_loss", recorded(device_step.training_loss, terms))
    trainer = Trainer(config, noise(config.data.image_size))
    network = trainer.network.double()
    record.weights = {name: value.clone() for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda changed, name=name: record.gradients[-1].update({name: changed.grad.clone()})
        )
    for _ in range(STEPS):
        record.gradients.append({})
        trainer.train_step()
    record.losses = [parts["loss"].item() for _, parts in terms]
    return record


def guide_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[int], Tensor]
) -> tuple[list[float], list[dict[str, Tensor]]]:
    """Ten steps of a plain loop: losses and gradients by parameter."""
    losses, gradients = [], []
    model.train()
    for step in range(STEPS):
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    return losses, gradients


def agree(
    found: Record, losses: Sequence[float], gradients: Sequence[dict[str, Tensor]], names: dict[str, str]
) -> None:
    """Compare losses and gradients of every step.

    Args:
        names: of the network's parameters -> of the guide's.
    """
    assert found.losses == pytest.approx(losses, rel=1e-9)
    for ours, theirs in zip(found.gradients, gradients, strict=True):
        one, other = (
            torch.cat([part.flatten() for part in parts])
            for parts in ([ours[name] for name in names], [theirs[name] for name in names.values()])
        )
        assert (one - other).norm() <= 1e-9 * other.norm()


def small(preset: str, **changes: Any) -> TrainConfig:
    """A preset with small images, batch and number of slices, in float64 once it is a network."""
    fields = {"data.image_size": 40, "global_batch": BATCH, "method.num_slices": 64, "precision": "fp32"}
    return unflatten(fields | changes, base=PRESETS[preset])


def sigreg(x: Tensor, directions: Tensor) -> Tensor:
    """Guide, 1: Epps-Pulley distance on 17 knots in [-5, 5], times the number of samples. x: (N, K), (K, M)."""
    t = torch.linspace(-5, 5, 17, dtype=x.dtype)
    normal = (-t.square() / 2).exp()
    empirical = (1j * (x @ directions).unsqueeze(2) * t).exp().mean(0)  # (M, T)
    error = (empirical - normal).abs().square() * normal
    return (torch.trapezoid(error, t, dim=1) * len(x)).mean()


def test_lejepa_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    # the guide's learning rate is constant within an epoch, and these are the steps of the first one
    sizes = {"model.encoder": "test_resnet", "views.global_size": 32, "views.local_size": 16}
    config = small("lejepa_guide", **sizes, **{"optim.final_lr_frac": 1.0})
    found = preset_steps(config, monkeypatch)

    backbone = timm.create_model("test_resnet", num_classes=0)
    backbone.double().load_state_dict(
        {name.removeprefix("encoder."): value for name, value in found.weights.items() if name.startswith("encoder.")}
    )
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=5e-4, weight_decay=1e-2)

    def loss(step: int) -> Tensor:
        large, local = found.views[step]
        embeddings = torch.stack([backbone(view) for view in (*large, *local)])  # (V, N, K)
        centers = embeddings[: len(large)].mean(0)
        similarity = (centers - embeddings).square().mean()
        directions = found.slices[step].double()
        regularizer = torch.stack([sigreg(each, directions) for each in embeddings]).mean()
        return (1 - 0.05) * similarity + 0.05 * regularizer

    assert [len(part) for part in found.views[0]] == [2, 6]
    losses, gradients = guide_steps(backbone, optimizer, loss)
    agree(found, losses, gradients, {f"encoder.{name}": name for name, _ in backbone.named_parameters()})


class Guide(nn.Module):
    """Guide, 2: timm's ResNet and a projector of three layers that ends in a ReLU."""

    def __init__(self, backbone: str, dim: int) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, pretrained=False, num_classes=0)
        hidden = [(nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU()) for _ in range(2)]
        self.projector = nn.Sequential(*hidden[0], *hidden[1], nn.Linear(dim, dim), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.projector(self.backbone(x))


def rdmreg(z: Tensor, target: Tensor, directions: Tensor) -> Tensor:
    """Guide, 4: mean squared difference of the sorted projections. z, target: (N, D); directions: (D, K)."""
    return (torch.sort(z @ directions, dim=0)[0] - torch.sort(target @ directions, dim=0)[0]).square().mean()


def test_rectified_lpjepa_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"model.encoder": "test_resnet", "model.projector_hidden": 96, "model.projector_dim": 96}
    found = preset_steps(small("rectified_lpjepa_guide", **sizes), monkeypatch)

    model = Guide("test_resnet", dim=96).double()
    ours = {
        name.replace("encoder.", "backbone."): value for name, value in found.weights.items() if "probe" not in name
    }
    missing = model.load_state_dict(ours, strict=False)
    # a bias before a batch norm has no effect; the preset has none
    assert missing == (["projector.0.bias", "projector.3.bias"], [])
    with torch.no_grad():
        model.projector[0].bias.zero_()
        model.projector[3].bias.zero_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)

    def loss(step: int) -> Tensor:
        ((first, second),) = found.views[step]
        z = model(first), model(second)
        directions, targets = found.slices[step].double(), found.targets[step].double()
        regularizer = sum(rdmreg(each, target, directions) for each, target in zip(z, targets, strict=True)) / 2
        return 25.0 * functional.mse_loss(*z) + 125.0 * regularizer

    losses, gradients = guide_steps(model, optimizer, loss)
    names = {name: name.replace("backbone.", "encoder.") for name, _ in model.named_parameters()}
    agree(found, losses, gradients, {ours: name for name, ours in names.items() if ours in found.weights})
