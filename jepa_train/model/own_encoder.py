"""Encoders by dotted path: a model of torchvision, or a function of the user's own that returns an nn.Module."""

import hashlib
import importlib
import importlib.util
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from jepa_train.base.checkout import is_running
from jepa_train.base.errors import ConfigError, check_identity, nearest
from jepa_train.config import ModelConfig
from jepa_train.distributed.torch_private import AnyBatchNorm

_TORCHVISION = "torchvision.models."


def is_dotted(name: str) -> bool:
    """True for a dotted path, as of the user's own code; names of timm's encoders and of METHODS have no dot."""
    return "." in name


def source_file(encoder: str) -> Path | None:
    """File of the module that defines an encoder of the user's own; None for those of timm and torchvision.

    Imports the packages that contain the module, but not the module.

    Raises:
        ConfigError: Python finds no such module, or it is the file of the running sweep.
    """
    if not is_dotted(encoder) or encoder.startswith(_TORCHVISION):
        return None
    module = encoder.rpartition(".")[0]
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # an import inside one of its packages
            raise
        spec = None
    except ValueError:  # "__main__" has no specification
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"model.encoder must be a timm model, torchvision.models.NAME or a function's path, got {encoder!r}; "
            f"Python finds no file of the module {module!r}; put it beside the sweep's file or on PYTHONPATH"
        )
    if is_running(spec.origin):
        raise ConfigError(
            f"model.encoder must be in a file of its own, got {encoder!r} of the sweep's file; each edit of the sweep "
            "would change its cells"
        )
    return Path(spec.origin).resolve()


def source_hash(encoder: str) -> str:
    """Hash of source_file, which identifies an encoder of the user's own in the cell key; "" for the others.

    Raises:
        ConfigError: as source_file.
    """
    file = source_file(encoder)
    text = b"" if file is None else file.read_bytes().replace(b"\r\n", b"\n")
    return "" if file is None else hashlib.blake2b(text, digest_size=8).hexdigest()


def check_source(config: ModelConfig) -> None:
    """Raise ConfigError if model.encoder_hash is set and is not the hash of the encoder's present file."""
    encoder = f"the file of model.encoder={config.encoder}"
    check_identity("model.encoder_hash", config.encoder_hash or None, source_hash(config.encoder), of=encoder)


def dotted_encoder(config: ModelConfig) -> nn.Module:
    """(N, 3, h, w) -> (N, E), randomly initialised: torchvision's model without its classifier, or the user's module.

    torchvision's ResNets follow small_stem and zero_init_last; the user's module is taken as it is.

    Raises:
        ConfigError: there is no such function, it returns something else, it has a batch norm that cannot have global
            statistics, or an option is set that it does not have. Other errors of the user's code are not caught.
    """
    name, build, options = config.encoder, _builder(config.encoder), dict[str, Any]()
    is_torchvisions = name.startswith(_TORCHVISION)
    is_resnet = is_torchvisions and build.__module__ == f"{_TORCHVISION}resnet"
    for option in ("patch_size", "drop_path", "register_tokens"):
        value = getattr(config, option)
        if value:
            raise ConfigError(f"model.{option} must be 0 for {name}, got {value}; it is for timm's encoders")
    if is_resnet:
        options["zero_init_residual"] = config.zero_init_last
    elif not config.zero_init_last:
        rule = f"model.zero_init_last must be true for {name}, got false"
        raise ConfigError(f"{rule}; it is for the ResNets of timm and torchvision")
    encoder = build(**options)
    if not isinstance(encoder, nn.Module):
        kind = type(encoder).__name__
        raise ConfigError(f"model.encoder must return an nn.Module, got {name}, which returns a {kind}")
    if is_torchvisions:
        linear = [path for path, module in encoder.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ConfigError(f"model.encoder must have a linear classifier, got {name}; try another one")
        encoder.set_submodule(linear[-1], nn.Identity())
    if is_resnet and config.small_stem:
        shrink_resnet(encoder)
    for norm in encoder.modules():
        if isinstance(norm, AnyBatchNorm) and not (norm.affine and norm.track_running_stats and norm.momentum):
            raise ConfigError(  # GlobalBatchNorm, of several workers or per view, needs them
                f"model.encoder must have batch norms with affine, track_running_stats and a momentum, got {norm} of "
                f"{name}; use torch's defaults"
            )
    return encoder


def shrink_resnet(encoder: Any) -> None:
    """Replace the stem and the max-pooling of a ResNet of timm or torchvision by a 3x3 stride-1 convolution."""
    stem = [module for module in encoder.conv1.modules() if isinstance(module, nn.Conv2d)]
    inputs, outputs = stem[0].in_channels, stem[-1].out_channels
    encoder.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(encoder.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's and torchvision's
    encoder.maxpool = nn.Identity()


def _builder(path: str) -> Any:
    """Function or class of torchvision or of the user, which makes the encoder.

    Raises:
        ConfigError: there is none, or it needs arguments.
    """
    if path.startswith(_TORCHVISION):
        models = importlib.import_module("torchvision.models")
        name, known = path.removeprefix(_TORCHVISION), models.list_models(module=models)
        if name not in known:
            remedy = nearest(name, known) or "; torchvision.models.list_models() lists them"
            raise ConfigError(f"model.encoder must be a classifier of torchvision.models, got {path!r}{remedy}")
        return models.get_model_builder(name)
    source_file(path)
    module, _, name = path.rpartition(".")
    there = importlib.import_module(module)
    function = getattr(there, name, None)
    if not callable(function):
        public = [each for each, value in vars(there).items() if callable(value) and not each.startswith("_")]
        remedy = nearest(name, public) or f"; {module} has no such function or class"
        raise ConfigError(f"model.encoder must name a function or class, got {path!r}{remedy}")
    try:
        signature(function).bind()
    except TypeError as error:
        raise ConfigError(f"model.encoder must be callable without arguments, got {path} ({error})") from None
    return function
