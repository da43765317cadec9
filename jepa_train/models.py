"""The network: an encoder by timm name, a 3-layer MLP projector, and the online linear probes on both."""

from collections.abc import Sequence
from inspect import signature
from typing import NamedTuple

import timm
import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn

from jepa_train.checks import ConfigError, nearest
from jepa_train.config import ModelConfig, TrainConfig
from jepa_train.randomness import derive_seed


class Output(NamedTuple):
    """What the network makes of V views of N images. Network.encode leaves the leading V out."""

    features: Tensor  # (V, N, E), the encoder's
    z: Tensor  # (V, N, D), the projector's
    probe_logits: Tensor  # (V, N, C), of the online probe on the detached features
    projector_logits: Tensor  # (V, N, C), of the online probe on the detached z


class Network(nn.Module):
    """Encoder -> features -> projector -> z, with a linear probe on each that sends no gradient back."""

    def __init__(self, *, encoder: nn.Module, projector: nn.Module, probe: nn.Module, projector_probe: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.probe = probe
        self.projector_probe = projector_probe

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Embed views, in their order; each resolution is one call of the encoder.

        Batch-norm statistics: in the encoder over all views of one resolution, in the projector over all views.

        Args:
            views: one (V_r, N, 3, h, w) per resolution, of the same N images; V is the sum of the V_r.
        """
        features = torch.cat([self.encoder(part.flatten(0, 1)) for part in views])  # (V * N, E), view by view
        z = self.projector(features)
        parts = features, z, self.probe(features.detach()), self.projector_probe(z.detach())
        num_images = views[0].shape[1]
        return Output(*(part.unflatten(0, (-1, num_images)) for part in parts))

    def encode(self, x: Tensor) -> Output:
        """Embed (N, 3, h, w) images: features (N, E), z (N, D), logits (N, C).

        For evaluation, on the bare network: DistributedDataParallel only wraps forward.
        """
        return Output(*(part.squeeze(0) for part in self([x.unsqueeze(0)])))


def build_network(config: TrainConfig, num_classes: int) -> Network:
    """The network of a config, on the CPU. The weights depend on config.seed alone; global RNG is left as it was.

    Raises:
        ConfigError: as check_encoder and num_features.
    """
    width = num_features(config)
    model = config.model
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed the GPUs as well, which this fork does not restore.
        torch.default_generator.manual_seed(derive_seed(config.seed, "weights"))
        return Network(
            encoder=build_encoder(model, config.views.global_size),
            projector=build_projector(width, model, rectify=config.method.rectify),
            probe=build_probe(width, num_classes),
            projector_probe=build_probe(model.projector_dim, num_classes),
        )


def build_encoder(config: ModelConfig, image_size: int) -> nn.Module:
    """The timm model without its classifier: (N, 3, h, w) -> (N, E), randomly initialised from the global RNG.

    Args:
        image_size: pixels; the size an encoder with position embeddings is made for. Where timm lets it, such an
            encoder interpolates them for views of other sizes.

    Raises:
        ConfigError: as check_encoder.
    """
    check_encoder(config.encoder)
    with torch.device("meta"):  # costs no memory and no random numbers; only to see what the class takes
        takes = signature(type(timm.create_model(config.encoder)).__init__).parameters
    sizes = {"img_size": image_size, "dynamic_img_size": True}
    options = {name: value for name, value in sizes.items() if name in takes}
    encoder = timm.create_model(config.encoder, num_classes=0, pretrained=False, **options)
    if config.small_stem and isinstance(encoder, ResNet):
        _shrink_stem(encoder)
    return encoder


def build_projector(num_features: int, config: ModelConfig, *, rectify: bool) -> nn.Sequential:
    """(N, E) -> (N, D): Linear-BN-ReLU twice, then Linear, then ReLU if rectify."""
    hidden = config.projector_hidden
    # No bias before a batch norm: its gradient is zero up to rounding, which AdamW scales up to steps of size lr.
    layers: list[nn.Module] = []
    for width in (num_features, hidden):
        layers += [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(hidden, config.projector_dim))
    if rectify:
        layers.append(nn.ReLU())  # not in place: the sign pattern of z is what methods and metrics read
    return nn.Sequential(*layers)


def build_probe(width: int, num_classes: int) -> nn.Sequential:
    """An online linear probe. LayerNorm, as in LeJEPA's recipe: probe.lr means the same at every scale of the input."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))


def check_encoder(name: str) -> None:
    """Raise ConfigError unless timm builds a model of that name."""
    known = timm.list_models()
    if name not in known:
        remedy = nearest(name, known) or "; timm.list_models() lists them, try 'resnet18'"
        raise ConfigError(f"model.encoder must be a timm model, got {name!r}{remedy}")


def num_features(config: TrainConfig) -> int:
    """The width E of the encoder's features, by a dry run at every view size: 0.1 s, on no memory.

    timm's own num_features is not the output's width for every family (MobileNetV3: 576 for 1024 features).

    Raises:
        ConfigError: an unknown encoder, or one that cannot take the views' sizes.
    """
    views = config.views
    sizes = {"global": views.global_size} | ({"local": views.local_size} if views.num_local else {})
    widths = {_dry_run(config.model, views.global_size, kind=kind, size=size) for kind, size in sizes.items()}
    assert len(widths) == 1, f"features of {config.model.encoder} differ in width between view sizes: {widths}"
    return widths.pop()


def _dry_run(config: ModelConfig, image_size: int, *, kind: str, size: int) -> int:
    try:
        with torch.device("meta"), torch.no_grad():
            features = build_encoder(config, image_size).eval()(torch.empty(1, 3, size, size))
    except (AssertionError, RuntimeError) as error:  # what timm and PyTorch raise when a size does not fit
        detail = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"views.{kind}_size must fit {config.encoder}, got {size} ({detail}); change it or model.encoder"
        ) from None
    return features.shape[-1]


def _shrink_stem(encoder: ResNet) -> None:
    """A 3x3 stride-1 convolution instead of the stem and its max-pooling: 32 px reach layer1 as 32 px."""
    stem = [module for module in encoder.conv1.modules() if isinstance(module, nn.Conv2d)]
    encoder.conv1 = nn.Conv2d(3, stem[-1].out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(encoder.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's ResNets
    encoder.maxpool = nn.Identity()
