"""Network: an encoder by name, an MLP projector, and online linear probes on both."""

import functools
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, Literal, NamedTuple

import timm
import torch
from timm.models import Beit, ConvNeXt, Eva, ResNet, VisionTransformer, VisionTransformerRelPos
from torch import Tensor, nn

from jepa_train.base.errors import ConfigError, nearest, require
from jepa_train.base.seeds import derive_seed
from jepa_train.config import ModelConfig, TrainConfig
from jepa_train.model.batch_norm import set_num_views
from jepa_train.model.heads import build_predictor, build_probe, build_projector, z_width
from jepa_train.model.own_encoder import check_source, dotted_encoder, is_dotted, shrink_resnet
from jepa_train.model.weights import fit, load_weights, planned_weights

# timm's plain ViTs: forward_intermediates gives class and patch tokens of single blocks, from the same pass
_VITS = (VisionTransformer, VisionTransformerRelPos, Beit, Eva)


class Output(NamedTuple):
    """Outputs of the network for V views of N images. Network.encode omits the leading V."""

    features: Tensor  # (V, N, P), of the encoder, for probes and evaluation; no gradient
    z: Tensor  # (V, N, D), of the projector
    predicted: Tensor  # (V, N, D), the predictor's estimate of each image's center; z without a predictor
    probe_logits: Tensor  # (V, N, C), of the online probe on the features
    projector_logits: Tensor  # (V, N, C), of the online probe on the detached z


class Widths(NamedTuple):
    """Output widths of an encoder; pooled and features differ for ViTs, and for probes on the embedding."""

    pooled: int  # E, output of the encoder, from which the projector starts
    features: int  # P, for probes and evaluation


class Network(nn.Module):
    """Encoder -> projector -> z, with linear probes on the encoder's features and on z, which send no gradient back.

    Without labels the probes are empty, and what stands for their logits has no meaning.

    The predictor, of the center from z, is used in training only.

    Args:
        probed: features for probes and evaluation: "blocks", as pooled_and_features has them; "pooled", the encoder's
            pooled output; "embedding", the output of the projector's first layer (model.embed_dim).
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: nn.Sequential,
        predictor: nn.Module,
        probe: nn.Module,
        projector_probe: nn.Module,
        probed: Literal["blocks", "pooled", "embedding"] = "blocks",
    ):
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.predictor = predictor
        self.probe = probe
        self.projector_probe = projector_probe
        self.probed = probed
        self._compiled: Callable[[Network, Sequence[Tensor]], tuple[Tensor, Tensor]] | None = None

    @property
    def has_probes(self) -> bool:
        """False for a network of images without labels."""
        return any(True for _ in self.probe.parameters())

    def forward(self, views: Sequence[Tensor], averaged: tuple[Tensor, Tensor] | None = None) -> Output:
        """Embed views, in order; one call of the encoder per resolution.

        Batch-norm statistics: in the encoder over all views of one resolution, in the projector over all views; with
        model.batch_norm="per_view" (convert_batch_norm), those of each view.

        Args:
            views: one (V_r, N, 3, h, w) per resolution, of the same N images; V is the sum of the V_r.
            averaged: features and z of an averaged network (Average.embed), which the probes then learn on in place of
                this network's, as they are evaluated on it. The logits are those of its views alone.
        """
        features, z = self.embed(views)
        set_num_views(self.predictor, len(z))
        predicted = self.predictor(z.flatten(0, 1)).view(z.shape)
        return self._with_logits(features, z, predicted, averaged or (features, z))

    def encode(self, x: Tensor) -> Output:
        """Embed (N, 3, h, w) images: features (N, P), z (N, D), logits (N, C).

        For evaluation. Not compiled: the last chunk of every split would need a compilation of its own.
        """
        features, z = self._embed([x.unsqueeze(0)])
        return Output(*(part.squeeze(0) for part in self._with_logits(features, z, z, (features, z))))

    def embed(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features (V, N, P) and z (V, N, D) of views as in forward, without the probes."""
        return self._embed(views) if self._compiled is None else self._compiled(self, views)

    def compile_embedding(self) -> None:
        """Compile embed, and with it forward, at the first call; once per set of shapes.

        Dropout and stochastic depth then draw other random numbers.
        """
        # Not dynamic: the second of two resolutions would turn the sizes of the first into symbols. Not the bound
        # method: a module that refers to itself is freed, with its GPU memory, by the garbage collector alone.
        self._compiled = torch.compile(Network._embed, dynamic=False)

    def _embed(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        parts = []
        for part in views:
            set_num_views(self.encoder, len(part))
            parts.append(pooled_and_features(self.encoder, part.flatten(0, 1)))
        pooled, features = (torch.cat(part) for part in zip(*parts, strict=True))  # (V * N, .), view by view
        if self.probed != "blocks":
            features = (self.projector[0](pooled) if self.probed == "embedding" else pooled).detach()
        shape = (-1, views[0].shape[1])
        set_num_views(self.projector, sum(len(part) for part in views))
        return features.unflatten(0, shape), self.projector(pooled).unflatten(0, shape)

    def _with_logits(self, features: Tensor, z: Tensor, predicted: Tensor, probed: tuple[Tensor, Tensor]) -> Output:
        logits = self.probe(probed[0].detach()), self.projector_probe(probed[1].detach())
        return Output(features, z, predicted, *logits)


def pooled_and_features(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Input of the projector (N, E), and features for probes and evaluation (N, P), of (N, 3, h, w), in one pass.

    The features, detached, are LeJEPA's (README, linear probe evaluation): for a ViT that pools by its class token, the
    class tokens of the last two blocks, P = 2 E; for other ViTs the means of those blocks' patch tokens; for other
    encoders their pooled output, P = E. The ViT's final norm is applied to the tokens of both blocks, as in DINO's
    linear evaluation: without it the scale of the residual stream would weight the blocks in kNN and in the probe.
    """
    if not isinstance(encoder, _VITS) or not type(encoder).__module__.startswith("timm."):
        pooled = encoder(x)
        return pooled, pooled.detach()
    prefix = encoder.num_prefix_tokens
    last, intermediates = encoder.forward_intermediates(
        x, indices=[-2], norm=True, output_fmt="NLC", return_prefix_tokens=prefix > 0
    )  # (N, prefix + L, E), and a list of one (N, L, E) or, where there is a prefix, ((N, L, E), (N, prefix, E))
    if encoder.global_pool == "token":
        features = torch.cat([intermediates[0][1][:, 0], last[:, 0]], dim=1)
    else:
        patches = intermediates[0][0] if prefix else intermediates[0]
        features = torch.cat([patches.mean(dim=1), last[:, prefix:].mean(dim=1)], dim=1)
    return encoder.forward_head(last), features.detach()


def build_network(config: TrainConfig, num_classes: int) -> Network:
    """Build the network of a config on the CPU; global RNG is unchanged.

    The weights depend on config.seed alone, those of the encoder on model.weights too.

    Args:
        num_classes: of the online probes; 0 for images without labels, whose network has none.

    Raises:
        ConfigError: as feature_widths and load_weights.
    """
    widths = feature_widths(config)
    model, probe = config.model, config.probe
    embedding: Literal["pooled", "embedding"] = "embedding" if model.embed_dim else "pooled"
    width = z_width(widths.pooled, model)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the GPUs as well, which this fork does not restore.
        torch.default_generator.manual_seed(derive_seed(config.seed, "weights"))
        network = Network(
            encoder=build_encoder(model, config.views.global_size, config.data.channels),
            projector=build_projector(widths.pooled, model, output_activation=config.method.output_activation),
            predictor=build_predictor(width, model),
            probe=build_probe(widths.features, num_classes, norm=probe.norm),
            projector_probe=build_probe(width, num_classes, norm=probe.norm),
            probed="blocks" if probe.features == "blocks" else embedding,
        )
    if model.weights:
        load_weights(network.encoder, model)
    return network


def build_encoder(config: ModelConfig, image_size: int, channels: int = 3) -> nn.Module:
    """The encoder without a classifier: (N, channels, h, w) -> (N, E), randomly initialised from the global RNG.

    A timm model by its name; dotted_encoder's by a dotted path.

    Args:
        image_size: pixels; the size of the position embeddings, if any, which are interpolated for views of other sizes
            if timm supports it.

    Raises:
        ConfigError: an encoder that timm does not know; as timm_options, check_source and dotted_encoder.
    """
    check_source(config)
    if is_dotted(config.encoder):
        return dotted_encoder(config)
    known = timm.list_models()
    if config.encoder not in known:
        remedy = nearest(config.encoder, known) or "; timm.list_models() lists them, try 'resnet18'"
        raise ConfigError(f"model.encoder must be a timm model, got {config.encoder!r}{remedy}")
    options = timm_options(config, image_size, channels)
    encoder = timm.create_model(config.encoder, num_classes=0, pretrained=False, **options)
    if config.small_stem:
        _shrink_stem(encoder, config, channels)
    return encoder


def timm_options(config: ModelConfig, image_size: int, channels: int) -> dict[str, Any]:
    """Options with which timm.create_model builds the encoder, besides its name and num_classes=0.

    Raises:
        ConfigError: an option, such as patch_size, for an encoder without it.
    """
    takes = _options(config.encoder)
    sizes = {"img_size": image_size, "dynamic_img_size": True}
    options = {name: value for name, value in sizes.items() if name in takes}
    options |= {"in_chans": channels} if channels != 3 else {}
    for name, option, lacks in (
        ("drop_path", "drop_path_rate", "stochastic depth"),
        ("patch_size", "patch_size", "patch size to choose"),
        ("register_tokens", "reg_tokens", "register tokens"),
    ):
        value = getattr(config, name)
        if value and option not in takes:
            raise ConfigError(f"model.{name} must be 0 for {config.encoder}, got {value}; it has no {lacks}")
        options |= {option: value} if value else {}
    if not config.zero_init_last:
        if takes.get("zero_init_last") is not True:
            rule = f"model.zero_init_last must be true for {config.encoder}, got false"
            raise ConfigError(f"{rule}; it has no residual blocks that timm starts at 0")
        options["zero_init_last"] = False
    return options


@functools.lru_cache(maxsize=64)  # a sweep asks for each cell, and most have the same model
def weights_report(config: ModelConfig, image_size: int, channels: int) -> str:
    """The report of `fit` for model.weights, before anything is trained or downloaded; "" for a random start.

    Raises:
        ConfigError: as build_encoder and fit.
    """
    if not config.weights:
        return ""
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if is_dotted(config.encoder) else "meta"):
        return fit(build_encoder(config, image_size, channels), planned_weights(config)[1], config)[1]


def feature_widths(config: TrainConfig) -> Widths:
    """Output widths of the encoder, by a dry run at every view size: of a timm model on the meta device (0.1 s).

    timm's num_features is not the width of the output for every family (MobileNetV3: 576 for 1024 features). Other
    encoders run on the CPU, in evaluation and in training: their code may read values of tensors, which the meta device
    does not have, and return something else in training.

    Raises:
        ConfigError: as build_encoder; an encoder that cannot be built, takes no images of the views' sizes, or does not
            give one vector per image, as wide for all of them.
    """
    views = config.views
    measure = _widths if is_dotted(config.model.encoder) else _known_widths  # a file of the user's may change
    found = measure(config.model, views.global_size, views.local_size if views.num_local else 0, config.data.channels)
    return found if config.probe.features == "blocks" else Widths(found.pooled, config.model.embed_dim or found.pooled)


def _widths(model: ModelConfig, global_size: int, local_size: int, channels: int) -> Widths:
    """The dry run of feature_widths; local_size is 0 without local views."""
    sizes = {"global": global_size} | ({"local": local_size} if local_size else {})
    of_channels = f" of data.channels={channels}" if channels != 3 else ""
    dotted = is_dotted(model.encoder)
    widths: set[Widths] = set()
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if dotted else "meta"), torch.no_grad():
        # an error of the user's own code in it has nothing to do with a size
        encoder = build_encoder(model, global_size, channels) if dotted else None
        for kind, size in sizes.items():
            try:
                if encoder is None:
                    encoder = build_encoder(model, global_size, channels)
                for training in (False, True) if dotted else (False,):
                    parts = pooled_and_features(encoder.train(training), torch.zeros(2, channels, size, size))
                    require(all(part.ndim == 2 for part in parts), "it gives no vector per image")
                    widths.add(Widths(*(part.shape[1] for part in parts)))
                require(len(widths) == 1, f"features of another width than those of {global_size} px")
            except ConfigError:
                raise
            except Exception as error:  # noqa: BLE001 (models have no common error for a size that does not fit)
                detail = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
                raise ConfigError(
                    f"views.{kind}_size must fit {model.encoder}, got {size}{of_channels} ({detail}); change it or "
                    "model.encoder"
                ) from None
    return widths.pop()


_known_widths = functools.lru_cache(maxsize=64)(_widths)  # a worker runs many cells, mostly of few encoders


@functools.cache
def _options(name: str) -> Mapping[str, Any]:
    """Keyword arguments of the class of a timm model, with their defaults."""
    with torch.device("meta"):  # no memory, no random numbers
        parameters = signature(type(timm.create_model(name)).__init__).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _shrink_stem(encoder: nn.Module, config: ModelConfig, channels: int) -> None:
    """Replace a ResNet's stem and max-pooling, or a ConvNeXt's patches, by a 3x3 stride-1 convolution.

    32 px reach the first stage as 32 px. (timm's ConvNeXt with patch_size 2 would halve them in that stage.)
    """
    if isinstance(encoder, ResNet):
        shrink_resnet(encoder)
    elif isinstance(encoder, ConvNeXt):
        if config.patch_size:
            raise ConfigError(
                f"model.patch_size must be 0 where model.small_stem replaces the patches of {config.encoder}, "
                f"got {config.patch_size}; set model.small_stem=false"
            )
        stem = [module for module in encoder.stem if isinstance(module, nn.Conv2d)]
        bias, width = stem[-1].bias is not None, stem[-1].out_channels
        conv = nn.Conv2d(channels, width, kernel_size=3, stride=1, padding=1, bias=bias)
        nn.init.trunc_normal_(conv.weight, std=0.02)  # as timm's ConvNeXts
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        encoder.stem = nn.Sequential(conv, encoder.stem[-1])  # the last one is the norm
