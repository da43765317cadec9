"""Network: encoders of every kind, order of views, features for the probes, stems, refusals, seeds.

Run: python -m pytest tests/unit/model/test_network.py
"""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jepa_train.base.errors import ConfigError
from jepa_train.config import ModelConfig, ProbeConfig, TrainConfig, ViewsConfig
from jepa_train.methods import LeJEPA, Method, RectifiedLpJEPA
from jepa_train.model.batch_norm import convert_batch_norm
from jepa_train.model.ema import Average
from jepa_train.model.network import (
    _known_widths,
    build_encoder,
    build_network,
    feature_widths,
    pooled_and_features,
)

LEJEPA = LeJEPA()
VIEWS = ViewsConfig(num_global=2, global_size=32, num_local=1, local_size=16)
SMALL_LOCAL = dataclasses.replace(VIEWS, local_size=8)


def config_for(
    encoder: str = "test_resnet", *, views: ViewsConfig = VIEWS, method: Method = LEJEPA, seed: int = 0, **model: Any
) -> TrainConfig:
    config = ModelConfig(encoder=encoder, projector_hidden=24, projector_dim=8, **model)
    return TrainConfig(model=config, views=views, method=method, seed=seed)


def record(layer: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Input and output of the layer, by call."""
    calls: list[tuple[Tensor, Tensor]] = []
    layer.register_forward_hook(lambda _, args, output: calls.append((args[0], output)))
    return calls


def random_views(num_images: int = 4, sizes: tuple[int, int] = (32, 16)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(views, num_images, 3, size, size) for views, size in zip((2, 1), sizes, strict=True)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("test_resnet", (32, 16)),
        ("test_vit", (32, 16)),
        ("test_vit2", (32, 16)),  # no class token
        ("vit_tiny_patch16_224", (48, 16)),  # takes one size unless asked for more
        ("mobilenetv3_small_100", (32, 16)),  # its features are wider than timm's num_features
        ("test_convnext", (32, 16)),
    ],
)
def test_every_kind_of_encoder_trains_at_two_resolutions(name: str, sizes: tuple[int, int]) -> None:
    views = dataclasses.replace(VIEWS, global_size=sizes[0], local_size=sizes[1])
    config = config_for(name, views=views)
    network = build_network(config, num_classes=5)
    output = network(random_views(sizes=sizes))
    assert output.features.shape == (3, 4, feature_widths(config).features)
    assert not output.features.requires_grad
    assert output.z.shape == (3, 4, 8)
    assert output.probe_logits.shape == output.projector_logits.shape == (3, 4, 5)
    sum(part.square().sum() for part in (output.z, output.probe_logits, output.projector_logits)).backward()
    # a parameter without a gradient would not decay either
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("encoder", "method"), [("test_resnet", LEJEPA), ("test_resnet", RectifiedLpJEPA()), ("test_vit", LEJEPA)]
)
def test_without_a_projector_z_is_the_pooled_output(encoder: str, method: Method) -> None:
    views = dataclasses.replace(VIEWS, num_local=0)
    config = config_for(encoder, views=views, method=method, projector_layers=0, predictor=method.uses_center)
    network = build_network(config, num_classes=5)
    pooled = record(network.projector)
    output = network(random_views()[:1])
    z = pooled[0][0].unflatten(0, (2, 4))
    assert output.z.shape == (2, 4, feature_widths(config).pooled) == output.predicted.shape
    assert torch.equal(output.z, z if method.output_activation == "none" else z.relu())
    (output.predicted.square().sum() + output.probe_logits.sum() + output.projector_logits.sum()).backward()
    # a parameter without a gradient would not decay either
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_views_keep_their_order_and_their_images() -> None:
    network = build_network(config_for(), num_classes=5).eval()
    views = random_views()
    output = network(views)
    with torch.no_grad():
        for index, view in enumerate([views[0][0], views[0][1], views[1][0]]):
            for image in range(4):
                alone = network.encoder(view[image : image + 1])
                torch.testing.assert_close(output.features[index, image], alone[0], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(output.z[index, image], network.projector(alone)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "layout"),
    [
        ("test_resnet", torch.channels_last),
        ("mobilenetv3_small_100", torch.contiguous_format),  # timm's BatchNormAct2d
    ],
)
def test_batch_norm_per_view_is_one_pass_per_view(encoder: str, layout: torch.memory_format) -> None:
    """Outputs, gradients and running statistics of an encoder, a projector and a predictor, at two resolutions."""
    single = build_network(config_for(encoder, predictor=True), num_classes=5).double().to(memory_format=layout)
    together = convert_batch_norm(copy.deepcopy(single), per_view=True)
    views = [1 + view.double() for view in random_views()]
    output = together(views)
    passes = [single([view[None]]) for part in views for view in part]
    weight = torch.randn(3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name in ("features", "z", "predicted"):
        alone = torch.cat([getattr(each, name) for each in passes])
        torch.testing.assert_close(getattr(output, name), alone, rtol=1e-9, atol=1e-9)
    (output.predicted * weight).sum().backward()
    (torch.cat([each.predicted for each in passes]) * weight).sum().backward()
    ours, alone = (
        torch.cat([part.grad.flatten() for part in network.parameters() if part.grad is not None])
        for network in (together, single)
    )
    torch.testing.assert_close(ours, alone, rtol=0, atol=1e-9 * alone.abs().max().item())
    torch.testing.assert_close(together.state_dict(), single.state_dict(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together.eval()(views).z, single.eval()(views).z)


def test_features_are_the_class_tokens_of_the_last_two_blocks_from_one_pass() -> None:
    network = build_network(config_for("test_vit"), num_classes=5)
    encoder = network.encoder
    tokens = [record(block) for block in encoder.blocks[-2:]]
    output = network(random_views())
    assert [len(calls) for calls in tokens] == [2, 2]  # one pass per resolution
    both = [torch.cat([encoder.norm(calls[size][1])[:, 0] for calls in tokens], dim=1) for size in range(2)]
    expected = torch.cat(both).unflatten(0, (3, 4))
    torch.testing.assert_close(output.features, expected.detach(), rtol=1e-5, atol=1e-5)
    judged = nn.functional.layer_norm(expected, (2 * 64,)) @ network.probe[1].weight.T + network.probe[1].bias
    torch.testing.assert_close(output.probe_logits, judged, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("embed_dim", [0, 6])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_probe_on_the_embedding_sees_the_input_of_the_projector(name: str, embed_dim: int) -> None:
    config = config_for(name, embed_dim=embed_dim)
    config = dataclasses.replace(config, probe=ProbeConfig(features="embedding", norm="none"))
    network = build_network(config, num_classes=5)
    for evaluated in (network, Average(network, 0.9).network):
        inputs = record(evaluated.projector[1 if embed_dim else 0])
        output = evaluated(random_views())
        assert torch.equal(output.features.flatten(0, 1), inputs[0][0])
        assert output.features.shape == (3, 4, feature_widths(config).features)
        assert not output.features.requires_grad
        judged = output.features @ network.probe[0].weight.T + network.probe[0].bias
        torch.testing.assert_close(output.probe_logits, judged)


def test_features_are_the_patch_means_of_the_last_two_blocks_without_a_class_token() -> None:
    encoder = build_encoder(ModelConfig(encoder="test_vit2"), 32)
    assert encoder.num_prefix_tokens == 1  # a register, which is no patch
    tokens = [record(block) for block in encoder.blocks[-2:]]
    _, features = pooled_and_features(encoder, random_views()[0][0])
    expected = torch.cat([calls[0][1][:, 1:].mean(1) for calls in tokens], dim=1)  # its norm comes after the pooling
    torch.testing.assert_close(features, expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "test_convnext"])
def test_the_projector_input_is_the_pooled_output_of_the_encoder(name: str) -> None:
    encoder = build_encoder(ModelConfig(encoder=name), 32).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(pooled_and_features(encoder, x)[0], encoder(x))


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("test_resnet", "layer1"),
        ("resnet18", "layer1"),
        ("test_convnext", "stages"),
        ("test_convnext3", "stages"),  # its stem is of two convolutions
    ],
)
def test_small_stem_keeps_the_resolution_up_to_the_first_stage(name: str, stage: str) -> None:
    sizes = {}
    for small_stem in (True, False):
        encoder = build_encoder(ModelConfig(encoder=name, small_stem=small_stem), 32).eval()
        calls = record(getattr(encoder, stage))
        encoder(torch.zeros(1, 3, 32, 32))
        sizes[small_stem] = tuple(calls[0][0].shape[-2:])
    assert sizes == {True: (32, 32), False: (8, 8)}


@pytest.mark.parametrize("encoder", ["resnet18", "test_resnet"])
def test_residual_blocks_start_at_zero_or_at_one_with_the_same_weights(encoder: str) -> None:
    weights = {}
    for zero in (True, False):
        network = build_network(config_for(encoder, zero_init_last=zero), num_classes=5)
        weights[zero] = dict(network.named_parameters())
    changed = [name for name, weight in weights[True].items() if not torch.equal(weight, weights[False][name])]
    assert len(changed) >= 4
    for name in changed:
        assert weights[True][name].unique().tolist() == [0]
        assert weights[False][name].unique().tolist() == [1]


@pytest.mark.parametrize(
    ("encoder", "option", "rule"),
    [
        ("densenet121", {"drop_path": 0.1}, "model.drop_path must be 0 for densenet121, got 0.1; it has no"),
        ("resnet18", {"patch_size": 4}, "model.patch_size must be 0 for resnet18, got 4; it has no patch"),
        ("test_convnext", {"patch_size": 2}, "model.patch_size must be 0 where model.small_stem replaces "),
        ("test_vit", {"zero_init_last": False}, "model.zero_init_last must be true for test_vit, got false; it has no"),
        ("resnetv2_50", {"zero_init_last": False}, "model.zero_init_last must be true for resnetv2_50, got false"),
        ("test_vit", {"views": SMALL_LOCAL}, "views.local_size must fit test_vit, got 8 ("),
        ("bat_resnext26ts", {}, "views.global_size must fit bat_resnext26ts, got 32 (AssertionError); change it or"),
        ("csatv2", {"small_stem": False}, "views.global_size must fit csatv2, got 32 (Calculated padded input size"),
        ("qqqq", {}, "model.encoder must be a timm model, got 'qqqq'; timm.list_models() lists them, try 'resnet18'"),
    ],
)
def test_encoders_and_options_that_timm_lacks_are_one_line(encoder: str, option: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError) as error:
        feature_widths(config_for(encoder, **option))
    assert str(error.value).startswith(rule)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("error", [ZeroDivisionError("a\nb"), KeyError("x"), TypeError(), NotImplementedError("no.")])
@pytest.mark.parametrize("place", ["timm.create_model", "jepa_train.model.network.pooled_and_features"])
def test_any_error_of_an_encoder_is_one_line(place: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, fail)
    _known_widths.cache_clear()
    with pytest.raises(ConfigError) as caught:
        feature_widths(config_for("resnet26"))
    assert str(caught.value).startswith("views.global_size must fit resnet26, got 32 (")
    assert str(caught.value).endswith("); change it or model.encoder")
    assert "\n" not in str(caught.value)


def test_outputs_other_than_one_vector_per_image_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def widths_for(*outputs: Tensor) -> None:
        parts = iter(outputs)
        monkeypatch.setattr("jepa_train.model.network.pooled_and_features", lambda *_: (next(parts),) * 2)
        _known_widths.cache_clear()
        feature_widths(config_for())

    with pytest.raises(ConfigError, match=r"global_size must fit test_resnet, got 32 \(it gives no vector per image\)"):
        widths_for(torch.zeros(2, 3, 4))
    with pytest.raises(ConfigError, match=r"local_size must fit test_resnet, got 16 \(features of another width than"):
        widths_for(torch.zeros(2, 3), torch.zeros(2, 4))


def test_same_seed_same_weights_and_global_rng_untouched() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    networks = [build_network(config_for(seed=seed), num_classes=5) for seed in (7, 7, 8)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(124)
    networks.append(build_network(config_for(seed=7), num_classes=5))
    first, again, other_seed, other_rng = (nn.utils.parameters_to_vector(net.parameters()) for net in networks)
    assert torch.equal(first, again)
    assert torch.equal(first, other_rng)
    assert not torch.equal(first, other_seed)


def test_probes_send_no_gradient_back() -> None:
    network = build_network(config_for(), num_classes=5)
    output = network(random_views())
    (output.probe_logits.square().sum() + output.projector_logits.square().sum()).backward()
    with_gradient = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert with_gradient == {"probe", "projector_probe"}
