"""Parameter groups and optimisers of a run; tests/parity has LARS's steps and the schedule.

Run: python -m pytest tests/unit/model/test_optim.py
"""

import copy
import dataclasses
import functools
import logging

import pytest
import torch
from meta_device import META, traces
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import SWALR

from jepa_train.config import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from jepa_train.model.lars import Lars
from jepa_train.model.network import Network, build_network
from jepa_train.model.optim import Optimizer, build_optimizer, lars, lr_at, parameter_groups, swa_lr_at

OPTIM = OptimConfig(lr=0.5, weight_decay=0.2, warmup_epochs=1.5, final_lr_frac=0.1)
CONFIG = TrainConfig(optim=OPTIM, probe=ProbeConfig(lr=0.25, weight_decay=0.03), epochs=5)


@pytest.fixture
def network() -> Network:
    return build_network(CONFIG, num_classes=3)


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
            adapted = [(group["adapted"], group["eta"]) for group in part.param_groups]
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
        optimizer.begin_step()
        optimizer.step(network.probe(torch.ones(1, network.probe[1].in_features)).sum())
        rates.append([part.param_groups[0]["lr"].item() for part in optimizer.optimizers])
    assert rates[0] == pytest.approx([0.5 / 3, 0.25 / 3])
    assert rates[2] == pytest.approx([0.5, 0.25])
    assert rates[-1] == pytest.approx([0.5 * 0.1, 0.25 * ends])
    assert optimizer.lr == rates[-1][0]


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_a_state_is_restored_in_place_whatever_settings_it_has(network: Network, name: str) -> None:
    """A captured graph keeps using the tensors of its steps. Earlier versions stored numbers as lr, and timm's LARS."""
    config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, name=name))
    optimizer, fresh = (build_optimizer(network, config, steps_per_epoch=2) for _ in range(2))
    start = copy.deepcopy(fresh.state_dict())
    one_step(optimizer, network)
    stored, before = copy.deepcopy((optimizer.state_dict(), network.state_dict()))
    for part in stored["optimizers"]:
        for group in part["param_groups"]:
            group |= {"lr": 0.1, "capturable": False, "always_adapt": True, "trust_coeff": 0.3}
    one_step(optimizer, network)
    expected = weights(network)
    tensors = moments(optimizer)
    one_step(optimizer, network)
    for each in (optimizer, fresh):
        network.load_state_dict(before)
        each.load_state_dict(stored)
        one_step(each, network)
        assert torch.equal(weights(network), expected)
    assert list(map(id, moments(optimizer))) == list(map(id, tensors))
    optimizer.load_state_dict(start)
    assert not any(moment.any() for moment in tensors)


def one_step(optimizer: Optimizer, network: Network) -> None:
    optimizer.begin_step()
    optimizer.step(sum(parameter.sin().sum() for parameter in network.parameters()))


def weights(network: Network) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach()


def moments(optimizer: Optimizer) -> list[Tensor]:
    """Everything that the optimisers remember."""
    states = [state for part in optimizer.optimizers for state in part.state.values()]
    return [tensor for state in states for tensor in state.values()]


def test_lars_of_a_resnet18_takes_24_launches() -> None:
    config = dataclasses.replace(CONFIG, model=ModelConfig(encoder="resnet18"), optim=OptimConfig(name="lars"))
    with META:
        network = build_network(config, num_classes=10)
    optimizer = lars(parameter_groups([network.encoder, network.projector], config.optim), config.optim)
    for parameter in network.parameters():
        parameter.grad = torch.empty_like(parameter)
    first, second = traces(optimizer.step)
    assert first.ops == second.ops
    assert len(first.launches) == 24, first.launches
