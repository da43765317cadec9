import dataclasses

import pytest
import torch
from torch import Tensor, nn

from jepa_train.checks import ConfigError
from jepa_train.config import ModelConfig, TrainConfig, ViewsConfig
from jepa_train.methods import LeJEPA, Method, RectifiedLpJEPA
from jepa_train.models import Network, build_encoder, build_network, build_projector, check_encoder, num_features

LEJEPA = LeJEPA()
VIEWS = ViewsConfig(num_global=2, global_size=32, num_local=1, local_size=16)


def config_for(
    encoder: str = "test_resnet", *, views: ViewsConfig = VIEWS, method: Method = LEJEPA, seed: int = 0
) -> TrainConfig:
    model = ModelConfig(encoder=encoder, projector_hidden=24, projector_dim=8)
    return TrainConfig(model=model, views=views, method=method, seed=seed)


def seen_by(layer: nn.Module | Tensor) -> list[Tensor]:
    """What the layer gets as its input, call by call."""
    assert isinstance(layer, nn.Module)
    inputs: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    return inputs


def random_views(num_images: int = 4, sizes: tuple[int, int] = (32, 16)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(v, num_images, 3, size, size, generator=generator) for v, size in zip((2, 1), sizes, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("test_resnet", (32, 16)),
        ("resnet10t", (32, 16)),
        ("test_vit", (32, 16)),
        ("vit_tiny_patch16_224", (48, 16)),  # takes one size unless asked for more
        ("mobilenetv3_small_100", (32, 16)),  # its features are wider than timm's num_features
        ("test_convnext", (64, 32)),
    ],
)
def test_every_kind_of_encoder_trains_at_two_resolutions(name: str, sizes: tuple[int, int]) -> None:
    views = dataclasses.replace(VIEWS, global_size=sizes[0], local_size=sizes[1])
    config = config_for(name, views=views)
    network = build_network(config, num_classes=5)
    output = network(random_views(sizes=sizes))
    assert output.features.shape == (3, 4, num_features(config))
    assert output.z.shape == (3, 4, 8)
    assert output.probe_logits.shape == output.projector_logits.shape == (3, 4, 5)
    sum(part.square().sum() for part in (output.z, output.probe_logits, output.projector_logits)).backward()
    # DistributedDataParallel waits for ever for a parameter without a gradient.
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


def test_encode_is_one_view_of_forward() -> None:
    network = build_network(config_for(), num_classes=5).eval()
    views = random_views()
    encoded = network.encode(views[0][1])
    for part, all_views in zip(encoded, network(views), strict=True):
        torch.testing.assert_close(part, all_views[1], rtol=1e-4, atol=1e-5)


def test_batch_norm_statistics_are_of_all_views_of_a_resolution() -> None:
    network = build_network(config_for(), num_classes=5).train()
    global_views, local_views = random_views()
    seen = seen_by(network.encoder.bn1)
    network([global_views, local_views])
    assert [len(x) for x in seen] == [2 * 4, 1 * 4]
    expected = torch.zeros(seen[0].shape[1])
    for x in seen:  # momentum 0.1, one update per resolution
        expected = 0.9 * expected + 0.1 * x.transpose(0, 1).flatten(1).mean(dim=1)
    torch.testing.assert_close(network.state_dict()["encoder.bn1.running_mean"], expected.detach())


@pytest.mark.parametrize("name", ["test_resnet", "resnet18", "resnet50_gn"])
def test_small_stem_keeps_the_resolution_up_to_layer1(name: str) -> None:
    sizes = {}
    for small_stem in (True, False):
        encoder = build_encoder(ModelConfig(encoder=name, small_stem=small_stem), 16).eval()
        seen = seen_by(encoder.layer1)
        encoder(torch.zeros(1, 3, 16, 16))
        sizes[small_stem] = tuple(seen[0].shape[-2:])
    assert sizes == {True: (16, 16), False: (4, 4)}


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


def test_projector_is_rectified_when_the_method_says_so() -> None:
    def smallest(network: Network) -> float:
        return network(random_views(16)).z.min().item()

    assert smallest(build_network(config_for(), num_classes=5)) < 0
    two_views = dataclasses.replace(VIEWS, num_local=0)
    rectified = build_network(config_for(method=RectifiedLpJEPA(), views=two_views), num_classes=5)
    assert smallest(rectified) == 0


def test_projector_is_what_three_layers_compute() -> None:
    torch.manual_seed(0)
    projector = build_projector(6, ModelConfig(projector_hidden=10, projector_dim=4), rectify=True).train()
    x = torch.randn(32, 6)
    linears = [module for module in projector if isinstance(module, nn.Linear)]
    hidden = x
    for linear in linears[:2]:
        hidden = hidden @ linear.weight.T
        hidden = ((hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()).clamp(min=0)
    expected = (hidden @ linears[2].weight.T + linears[2].bias).clamp(min=0)
    torch.testing.assert_close(projector(x), expected)


def test_unknown_encoder_is_answered_in_one_line() -> None:
    with pytest.raises(ConfigError) as error:
        check_encoder("resnet81")
    assert str(error.value) == "model.encoder must be a timm model, got 'resnet81'; did you mean 'resnet18'?"
    with pytest.raises(ConfigError, match=r"got 'qqqq'; timm.list_models\(\) lists them"):
        check_encoder("qqqq")
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):  # one spelling: weights play no part here
        check_encoder("resnet18.a1_in1k")


def test_view_size_that_the_encoder_cannot_take_is_named() -> None:
    views = dataclasses.replace(VIEWS, local_size=8)
    with pytest.raises(ConfigError) as error:
        num_features(config_for("test_vit", views=views))
    message = str(error.value)
    assert message.startswith("views.local_size must fit test_vit, got 8 (")
    assert "\n" not in message
    assert num_features(config_for("test_vit", views=dataclasses.replace(views, num_local=0))) == 64
