import dataclasses
import logging
import math

import numpy as np
import pytest
import torch

from jepa_train.config import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from jepa_train.models import Network, build_network
from jepa_train.optim import Optimizer, build_optimizer, lr_at, parameter_groups

CONFIG = TrainConfig(
    model=ModelConfig(projector_hidden=16, projector_dim=8),
    optim=OptimConfig(lr=0.5, weight_decay=0.2, warmup_epochs=1.5, final_lr_frac=0.1),
    probe=ProbeConfig(lr=0.25, weight_decay=0.03),
    epochs=5,
)


@pytest.fixture
def network() -> Network:
    return build_network(CONFIG, num_classes=3)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 1 / 10),  # the first step moves
        (4, 5 / 10),
        (9, 1.0),  # the last warm-up step is at the peak
        (54, 0.02 + 0.98 / 2),  # half-way between steps 9 and 99
        (39, 0.02 + 0.98 * math.cos(math.pi / 6) ** 2),  # a third of the way: (1 + cos(pi / 3)) / 2 = cos^2(pi / 6)
        (99, 0.02),
    ],
)
def test_schedule_follows_the_closed_form(step: int, factor: float) -> None:
    assert lr_at(step, total_steps=100, warmup_steps=10, final_lr_frac=0.02) == pytest.approx(factor)


def test_schedule_without_warm_up_starts_at_the_peak() -> None:
    factors = [lr_at(step, total_steps=3, warmup_steps=0, final_lr_frac=0.5) for step in range(3)]
    assert factors == pytest.approx([1.0, 0.75, 0.5])
    assert lr_at(0, total_steps=1, warmup_steps=0, final_lr_frac=0.0) == 1.0


def test_schedule_never_rises_after_the_peak_and_never_exceeds_it() -> None:
    factors = [lr_at(step, total_steps=57, warmup_steps=13, final_lr_frac=1e-3) for step in range(57)]
    assert max(factors) == factors[12] == 1.0
    assert all(np.diff(factors[:13]) > 0)
    assert all(np.diff(factors[12:]) < 0)


@pytest.mark.parametrize("warmup_steps", [4, 8])
def test_warm_up_longer_than_the_run_is_cut_off_by_its_end(warmup_steps: int) -> None:
    factors = [lr_at(step, total_steps=4, warmup_steps=warmup_steps, final_lr_frac=0.1) for step in range(4)]
    assert factors == pytest.approx([(step + 1) / warmup_steps for step in range(4)])


def test_warm_up_longer_than_the_run_is_said(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build_optimizer(network, CONFIG, steps_per_epoch=10)
        assert caplog.text == ""
        build_optimizer(network, dataclasses.replace(CONFIG, epochs=1), steps_per_epoch=10)
    assert "optim.warmup_epochs=1.5 covers all of epochs=1" in caplog.text


def test_parameter_groups_are_complete_disjoint_and_decay_only_weights(network: Network) -> None:
    groups = parameter_groups(network, CONFIG)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {id(parameter) for parameter in network.parameters()}

    settings = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    named = {name: settings[id(parameter)] for name, parameter in network.named_parameters()}
    assert named["encoder.conv1.weight"] == (0.5, 0.2)
    assert named["encoder.bn1.weight"] == named["encoder.bn1.bias"] == (0.5, 0.0)
    assert named["projector.6.weight"] == (0.5, 0.2)
    assert named["projector.1.weight"] == named["projector.6.bias"] == (0.5, 0.0)
    assert named["probe.1.weight"] == named["projector_probe.1.weight"] == (0.25, 0.03)
    assert named["probe.0.weight"] == named["projector_probe.1.bias"] == (0.25, 0.0)


def test_optimizer_takes_the_steps_of_adamw_computed_by_hand() -> None:
    start, target, peak, decay = 0.7, 2.0, 0.05, 0.3
    parameter = torch.nn.Parameter(torch.tensor([[start]], dtype=torch.float64))
    group = {"params": [parameter], "lr": peak, "weight_decay": decay}
    optimizer = Optimizer([group], total_steps=4, warmup_steps=2, final_lr_frac=0.25)
    w, m, v = start, 0.0, 0.0
    for t, factor in enumerate([0.5, 1.0, 0.25 + 0.75 / 2, 0.25], start=1):
        optimizer.step((parameter - target).square().sum())
        gradient = 2 * (w - target)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w -= peak * factor * decay * w
        w -= peak * factor * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        assert parameter.item() == pytest.approx(w, rel=1e-9)
        assert optimizer.lr == pytest.approx(peak * factor)
        assert parameter.grad is None


def test_probes_share_the_schedule_at_their_own_rate(network: Network) -> None:
    optimizer = build_optimizer(network, CONFIG, steps_per_epoch=2)  # 10 steps, 3 of warm-up
    optimizer.step(torch.stack([parameter.sum() for parameter in network.parameters()]).sum())
    assert [group["lr"] for group in optimizer.adamw.param_groups] == pytest.approx([0.5 / 3] * 2 + [0.25 / 3] * 2)
