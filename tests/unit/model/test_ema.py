"""Averaged network: weights against the closed form, batch norm, probes.

Run: python -m pytest tests/unit/model/test_ema.py
"""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import torch
from meta_device import DeviceForm
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from jepa_train.config import ModelConfig, TrainConfig, ViewsConfig
from jepa_train.model.batch_norm import convert_batch_norm
from jepa_train.model.ema import Average, EpochAverage
from jepa_train.model.network import Network, build_network

CONFIG = TrainConfig(
    model=ModelConfig(projector_hidden=16, projector_dim=8), views=ViewsConfig(global_size=16, num_local=0)
)


def network_of(encoder: str = "test_resnet", **model: float) -> Network:
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, encoder=encoder, **model))
    return build_network(config, num_classes=3)


def weights(network: Network) -> Tensor:
    return nn.utils.parameters_to_vector([*network.encoder.parameters(), *network.projector.parameters()]).detach()


def shake(network: Network, step: int) -> None:
    """Other weights, as after an optimiser step."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def global_views(seed: int = 0) -> list[Tensor]:
    return [torch.randn(2, 6, 3, 16, 16, generator=torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize("form", [nullcontext, DeviceForm])
@pytest.mark.parametrize("decay", [0.6, 0.99, 1 - 1e-7])
def test_average_is_the_weighted_mean_of_the_steps_without_the_initial_weights(
    decay: float, form: Callable[[], AbstractContextManager[object]]
) -> None:
    network = network_of()
    average = Average(network, decay)
    steps = []
    for step in range(7):
        shake(network, step)
        average.begin_step()
        with form():
            average.update()
        steps.append(weights(network).double().numpy())
    powers = decay ** np.arange(6, -1, -1, dtype=np.float64)  # towards decay = 1 all equal
    expected = (powers[:, None] * np.stack(steps)).sum(0) / powers.sum()
    np.testing.assert_allclose(weights(average.network).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_statistics_follow_the_averages_own_passes() -> None:
    network = network_of()
    average = Average(network, 0.9)
    average.train()
    seen: list[Tensor] = []
    average.network.encoder.bn1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    features, z = average.embed(global_views())
    assert (features.shape, z.shape) == ((2, 6, 96), (2, 6, 8))
    expected = 0.1 * seen[0].mean((0, 2, 3))
    torch.testing.assert_close(average.network.encoder.bn1.running_mean, expected)
    assert network.encoder.bn1.running_mean.abs().max() == 0
    shake(network, 0)
    average.begin_step()
    average.update()
    torch.testing.assert_close(average.network.encoder.bn1.running_mean, expected)


def test_batch_norm_per_view_reaches_the_average() -> None:
    network = convert_batch_norm(network_of(), per_view=True)
    average = Average(network, 0.9)
    average.train()
    views = [torch.cat([global_views()[0], 5 * global_views(1)[0]])]
    together = average.embed(views)
    average = Average(network_of(), 0.9)
    average.train()
    alone = [torch.cat(parts) for parts in zip(*(average.embed([view[None]]) for view in views[0]), strict=True)]
    torch.testing.assert_close(together, tuple(alone), rtol=1e-4, atol=1e-5)


def test_nothing_is_dropped_at_random_in_the_average() -> None:
    network = network_of("test_vit", drop_path=0.5).train()
    average = Average(network, 0.9)
    average.train()
    once, again = (average.embed(global_views())[1] for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(network(global_views()).z, network(global_views()).z)


def test_centre_is_constant_and_probes_learn_from_the_averages_features() -> None:
    network = network_of()
    average = Average(network, 0.9)
    shake(network, 1)
    average.train()
    averaged = average.embed(global_views())
    output = network(global_views(), averaged)
    ((output.z - averaged[1].mean(0)).square().mean() + output.probe_logits.square().mean()).backward()
    assert all(not part.requires_grad for part in averaged)
    assert all(p.grad is None for p in [*average.network.encoder.parameters(), *average.network.projector.parameters()])
    norm, linear = network.probe
    normalized = nn.functional.layer_norm(averaged[0], (96,), norm.weight, norm.bias)
    torch.testing.assert_close(output.probe_logits, normalized @ linear.weight.T + linear.bias)
    assert linear.weight.grad is not None


def test_mean_of_epochs_is_torchs_averaged_model_after_update_bn() -> None:
    network = network_of()
    average, peer = EpochAverage(network), AveragedModel(network)
    assert average.updates == 0
    for epoch in range(3):
        shake(network, epoch)
        batches = [views[0][0] for views in map(global_views, range(4))]
        average.update(network, batches, "fp32")
        peer.update_parameters(network)
        update_bn([batch[None, None] for batch in batches], peer)
    assert average.updates == 3
    found, expected = average.network.state_dict(), peer.module.state_dict()
    for name in expected:  # the mean of the batches' variances, in another order of operations
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4, msg=name)
    assert average.network.encoder.bn1.momentum == network.encoder.bn1.momentum == 0.1
    assert not any(module.training for module in average.network.modules())
    again = EpochAverage(network_of())
    again.load_state_dict(average.state_dict())
    assert again.updates == 3
    assert all(torch.equal(again.network.state_dict()[name], value) for name, value in found.items())
