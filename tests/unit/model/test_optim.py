"""Schedule, parameter groups and LARS against closed forms and steps computed by hand.

Run: python -m pytest tests/unit/model/test_optim.py
"""

import dataclasses
import functools
import logging
import math

import numpy as np
import pytest
import torch
from timm.optim import Lars
from torch.optim import AdamW
from torch.optim.swa_utils import SWALR

from jepa_train.config import OptimConfig, ProbeConfig, TrainConfig
from jepa_train.model.network import Network, build_network
from jepa_train.model.optim import Optimizer, build_optimizer, lars, lr_at, swa_lr_at
from jepa_train.model.precision import GradientScaler

CPU = torch.device("cpu")
OPTIM = OptimConfig(lr=0.5, weight_decay=0.2, warmup_epochs=1.5, final_lr_frac=0.1)
CONFIG = TrainConfig(optim=OPTIM, probe=ProbeConfig(lr=0.25, weight_decay=0.03), epochs=5)


@pytest.fixture
def network() -> Network:
    return build_network(CONFIG, num_classes=3)


@pytest.mark.parametrize(
    ("step", "total", "warmup", "factor"),
    [
        (0, 100, 10, 1 / 10),  # the first step moves
        (4, 100, 10, 5 / 10),
        (9, 100, 10, 1.0),  # the last warm-up step is at the peak
        (54, 100, 10, 0.02 + 0.98 / 2),  # half-way between steps 9 and 99
        (39, 100, 10, 0.02 + 0.98 * math.cos(math.pi / 6) ** 2),  # a third: (1 + cos(pi / 3)) / 2 = cos^2(pi / 6)
        (99, 100, 10, 0.02),
        (1, 3, 0, 0.02 + 0.98 / 2),
        (3, 4, 8, 4 / 8),  # a warm-up longer than the run is cut off
    ],
)
def test_schedule_follows_the_closed_form(step: int, total: int, warmup: int, factor: float) -> None:
    assert lr_at(step, total_steps=total, warmup_steps=warmup, final_lr_frac=0.02) == pytest.approx(factor)


@pytest.mark.parametrize("anneal_steps", [0, 1, 4, 20])
def test_rates_after_swa_start_are_those_of_swalr(anneal_steps: int) -> None:
    """SWALR takes over after step 5 of a cosine, and is stepped after every step, as in torch's recipe."""
    cosine = functools.partial(lr_at, total_steps=15, warmup_steps=2, final_lr_frac=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cosine(5))
    swalr = SWALR(optimizer, swa_lr=0.05, anneal_epochs=anneal_steps)
    expected = [cosine(step) for step in range(6)]
    for _ in range(6, 15):
        optimizer.step()
        swalr.step()
        expected.append(optimizer.param_groups[0]["lr"])
    found = [
        swa_lr_at(step, schedule=cosine, start=6, anneal_steps=anneal_steps, swa_lr_frac=0.05) for step in range(15)
    ]
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_warm_up_longer_than_the_run_is_warned_of(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build_optimizer(network, CONFIG, steps_per_epoch=10)
        assert caplog.text == ""
        build_optimizer(network, dataclasses.replace(CONFIG, epochs=1), steps_per_epoch=10)
    assert "optim.warmup_epochs=1.5 covers all of epochs=1" in caplog.text


def test_parameter_groups_are_complete_disjoint_and_decay_only_weights(network: Network) -> None:
    optimizer = build_optimizer(network, CONFIG, steps_per_epoch=1)
    groups = [group for part in optimizer.optimizers for group in part.param_groups]
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


def test_decay_all_decays_biases_and_norms_but_not_those_of_the_probes(network: Network) -> None:
    config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, decay_all=True))
    trained, probes = build_optimizer(network, config, steps_per_epoch=1).optimizers
    assert [group["weight_decay"] for group in trained.param_groups] == [0.2, 0.2]
    assert [group["weight_decay"] for group in probes.param_groups] == [0.03, 0.0]


@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_lars_takes_the_steps_computed_by_hand(decay: float) -> None:
    """solo-learn's LARS with eta .02, clip_lr and exclude_bias_n_norm, on a weight and a bias.

    Weights without decay, its online probes', are adapted too.
    """
    rng = np.random.default_rng(0)
    start, decays, clipped = [rng.normal(size=(3, 2)), rng.normal(size=3)], (decay, 0.0), []
    gradients = [[scale * rng.normal(size=w.shape) for w in start] for scale in (1e-4, 3.0, 0.05, 1e-3, 20.0)]
    peak, factors = 0.4, [0.5, 1.0, 0.25 + 0.75 * 0.75, 0.25 + 0.75 * 0.25, 0.25]
    parameters = [torch.nn.Parameter(torch.tensor(w)) for w in start]
    groups = [{"params": [p], "lr": peak, "weight_decay": decay} for p, decay in zip(parameters, decays, strict=True)]
    options = OptimConfig(name="lars", momentum=0.9, lars_eta=0.02)
    schedule = functools.partial(lr_at, total_steps=5, warmup_steps=2, final_lr_frac=0.25)
    optimizer = Optimizer(
        [lars(groups, options)], schedules=[schedule], scaler=GradientScaler("fp32", torch.device("cpu"))
    )
    weights, velocities = [w.copy() for w in start], [np.zeros_like(w) for w in start]
    for gradient, factor in zip(gradients, factors, strict=True):
        optimizer.step(sum((p * torch.tensor(g)).sum() for p, g in zip(parameters, gradient, strict=True)))
        lr = peak * factor
        for w, g, v, decay in zip(weights, gradient, velocities, decays, strict=True):
            d = g
            if w.ndim == 2:
                w_norm, g_norm = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
                ratio = 0.02 * w_norm / (g_norm + decay * w_norm + 1e-8) / lr
                clipped.append(ratio > 1)
                d = (g + decay * w) * min(ratio, 1.0)
            v[...] = 0.9 * v + d
            w -= lr * v
        for parameter, w in zip(parameters, weights, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-10)
        assert optimizer.lr == pytest.approx(lr)
    assert {True, False} == set(clipped)  # both sides of the clipping were there


@pytest.mark.parametrize(
    ("optim", "probe", "kinds"),
    [
        ("adamw", "encoder", (AdamW, AdamW)),
        ("lars", "adamw", (Lars, AdamW)),
        ("lars", "encoder", (Lars, Lars)),
    ],
)
def test_the_probes_are_on_adamw_or_on_the_encoders_optimiser(
    network: Network, optim: str, probe: str, kinds: tuple[type, type]
) -> None:
    config = dataclasses.replace(
        CONFIG,
        optim=dataclasses.replace(CONFIG.optim, name=optim, lars_eta=0.03),
        probe=dataclasses.replace(CONFIG.probe, optimizer=probe),
    )
    optimizers = build_optimizer(network, config, steps_per_epoch=1).optimizers
    assert tuple(map(type, optimizers)) == kinds
    for part, lr, decay in zip(optimizers, (0.5, 0.25), (0.2, 0.03), strict=True):
        assert [(group["lr"], group["weight_decay"]) for group in part.param_groups] == [(lr, decay), (lr, 0.0)]
        if isinstance(part, Lars):
            adapted = [(group["always_adapt"], group["trust_coeff"]) for group in part.param_groups]
            assert adapted == [(True, 0.03), (False, 0.03)]
    probes = optimizers[1]
    probed = {id(p) for module in (network.probe, network.projector_probe) for p in module.parameters()}
    assert {id(p) for group in probes.param_groups for p in group["params"]} == probed


@pytest.mark.parametrize(("schedule", "ends"), [("encoder", 0.1), ("constant", 1.0)])
def test_a_constant_schedule_keeps_the_probes_at_their_peak_after_the_warm_up(
    network: Network, schedule: str, ends: float
) -> None:
    config = dataclasses.replace(CONFIG, probe=dataclasses.replace(CONFIG.probe, schedule=schedule))
    optimizer = build_optimizer(network, config, steps_per_epoch=2)  # 3 steps of warm-up, 10 in all
    rates = []
    for _ in range(10):
        optimizer.step(network.probe(torch.ones(1, network.probe[1].in_features)).sum())
        rates.append([part.param_groups[0]["lr"] for part in optimizer.optimizers])
    assert rates[0] == pytest.approx([0.5 / 3, 0.25 / 3])
    assert rates[2] == pytest.approx([0.5, 0.25])
    assert rates[-1] == pytest.approx([0.5 * 0.1, 0.25 * ends])
