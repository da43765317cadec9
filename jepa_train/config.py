"""TrainConfig: frozen dataclasses, one nesting level, and their flat dotted form.

The flat form, {"method": "lejepa", "method.lamb": 0.05, "optim.lr": 1e-3, ...}, is what Tune, Optuna, MLflow and pandas
see. It is complete: every field, not only the swept ones. Its hash is the cell key.
"""

import dataclasses
import functools
import hashlib
import json
import operator
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jepa_train.checks import NAMES, ConfigError, conform, conformed, nearest, require
from jepa_train.data import DATASETS
from jepa_train.methods import METHODS, LeJEPA, Method

Scalar = str | int | float | bool
Flat = dict[str, Scalar]

_PLACE = {"cell": False}  # says where a thing lies or how it is fetched, not what is trained: no part of the cell key


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images. Val is carved out of train, stratified and deterministic; test is evaluated once, at the end."""

    name: str = "digits"
    path: str = field(default="", metadata=_PLACE)
    download: bool = field(default=False, metadata=_PLACE)
    fingerprint: str = ""  # hash of an image folder's file list, filled in by preflight: the path is not the identity
    image_size: int = 12  # pixels; what is stored, before augmentation
    val_frac: float = 0.1

    def __post_init__(self) -> None:
        conform(self)
        require(self.name in DATASETS, f"name must be a known dataset, got {self.name!r}{nearest(self.name, DATASETS)}")
        require(self.image_size >= 4, f"image_size must be at least 4 px, got {self.image_size}; try 16")
        require(0 < self.val_frac < 1, f"val_frac must lie in (0, 1), got {self.val_frac}; try 0.1")


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The augmentation recipe: crops, colour and blur. Sizes in pixels, scales in area, the rest in probability.

    The defaults suit digits, grey strokes: a flip makes another character, colour has no effect, and blur or
    solarising hide what little there is. recipes.py has those of other images.
    """

    num_global: int = 2
    num_local: int = 0
    global_size: int = 12
    local_size: int = 8
    global_scale_min: float = 0.6
    global_scale_max: float = 1.0
    local_scale_min: float = 0.05
    local_scale_max: float = 0.3
    flip: float = 0.0
    jitter: float = 0.8  # probability; the strengths follow
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0

    def __post_init__(self) -> None:
        conform(self)
        for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is a probability in [0, 1], got {value}; 0 turns it off")
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is a jitter strength in [0, 1], got {value}; 0 turns it off")
        require(0 <= self.hue <= 0.5, f"hue is a jitter strength in [0, 0.5], got {self.hue}; 0 turns it off")
        require(self.num_global >= 1, f"num_global must be at least 1, got {self.num_global}; the papers use 2")
        require(self.num_local >= 0, f"num_local must not be negative, got {self.num_local}; 0 means none")
        for kind in ("global", "local"):
            size, low, high = (getattr(self, f"{kind}_{part}") for part in ("size", "scale_min", "scale_max"))
            require(size >= 4, f"{kind}_size must be at least 4 px, got {size}; try 16")
            require(
                0 < low <= high <= 1,
                f"{kind}_scale_min must satisfy 0 < {kind}_scale_min <= {kind}_scale_max <= 1, got {low} and {high}",
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Encoder by timm name, and a 3-layer MLP projector (Linear-BN-ReLU twice, then Linear)."""

    encoder: str = "test_resnet"  # timm's 0.4 M-parameter ResNet: small images on CPU
    small_stem: bool = True  # ResNets: 3x3 stride-1 stem without max-pooling
    projector_hidden: int = 256
    projector_dim: int = 64

    def __post_init__(self) -> None:
        conform(self)
        for name in ("projector_hidden", "projector_dim"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}; try 64")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW; linear warm-up, then cosine from lr to final_lr_frac * lr. No hidden scaling of lr."""

    lr: float = 3e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 2.0
    final_lr_frac: float = 1e-3

    def __post_init__(self) -> None:
        conform(self)
        require(self.lr > 0, f"lr must be positive, got {self.lr}; try 1e-3")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}; 0 turns it off")
        require(self.warmup_epochs >= 0, f"warmup_epochs must not be negative, got {self.warmup_epochs}; 0 means none")
        require(
            0 <= self.final_lr_frac <= 1,
            f"final_lr_frac is a fraction of lr in [0, 1], got {self.final_lr_frac}; try 1e-3",
        )


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The evaluation protocol: online linear probes (on the schedule of the encoder) and kNN."""

    lr: float = 1e-2
    weight_decay: float = 1e-6
    knn_k: int = 20

    def __post_init__(self) -> None:
        conform(self)
        require(self.lr > 0, f"lr must be positive, got {self.lr}; try 1e-2")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}; 0 turns it off")
        require(self.knn_k >= 1, f"knn_k must be at least 1, got {self.knn_k}; try 20")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, complete. The global batch is the unit; how many workers share it changes no result."""

    method: Method = field(default_factory=LeJEPA)
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    epochs: int = 100  # 0 evaluates the randomly initialised encoder
    global_batch: int = 128
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        conform(self)
        conformed("method", self.method, functools.reduce(operator.or_, METHODS.values()))
        require(self.epochs >= 0, f"epochs must not be negative, got {self.epochs}; 0 evaluates the initial encoder")
        require(self.global_batch >= 2, f"global_batch must be at least 2, got {self.global_batch}; try 128")
        require(0 <= self.seed < 2**31, f"seed must lie in [0, 2**31), got {self.seed}; try 0")
        self.method.check_views(self.views.num_global, self.views.num_local)


def flatten(config: TrainConfig) -> Flat:
    """The complete flat form: {"method": name, "method.lamb": ..., "data.name": ..., "epochs": ...}."""
    flat: Flat = {}
    for top in dataclasses.fields(config):
        value = getattr(config, top.name)
        if not dataclasses.is_dataclass(value):
            flat[top.name] = value
            continue
        if top.name == "method":
            flat["method"] = config.method.name
        for inner in dataclasses.fields(value):
            flat[f"{top.name}.{inner.name}"] = getattr(value, inner.name)
    return flat


def unflatten(flat: Mapping[str, Any], *, base: TrainConfig | None = None) -> TrainConfig:
    """The config of a flat form; what it leaves out comes from base, or from the defaults.

    A `method` other than the base's starts from that method's own defaults.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range, in one line.
    """
    base = base or TrainConfig()
    method = _method_named(flat.get("method", base.method.name), base)
    types = field_types(type(method))
    for key in flat:
        if key not in types:
            raise ConfigError(f"{key} is not a field of the config{nearest(str(key), types)}")
    values = {key: _built("", conformed, key, value, types[key]) for key, value in flat.items()}
    sections: dict[str, Any] = {}
    for top in dataclasses.fields(TrainConfig):
        current = method if top.name == "method" else getattr(base, top.name)
        if not dataclasses.is_dataclass(current):
            sections[top.name] = values.get(top.name, current)
            continue
        prefix = f"{top.name}."
        inner = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        sections[top.name] = _built(prefix, dataclasses.replace, current, **inner)
    return _built("", TrainConfig, **sections)


def parse(assignments: Iterable[str], *, base: TrainConfig) -> Flat:
    """The flat form of command-line words `key=value`; values are read by the type of their field."""
    words = [word.partition("=") for word in assignments]
    for key, equals, value in words:
        if not equals:
            raise ConfigError(f"{key} is not an assignment; write key=value, as in optim.lr=1e-3 (got {key + value!r})")
    texts = {key: value for key, _, value in words}
    if len(texts) < len(words):
        twice = next(key for key in texts if sum(word[0] == key for word in words) > 1)
        raise ConfigError(f"{twice} is given twice; keep one")
    types = field_types(type(_method_named(texts.get("method", base.method.name), base)))
    return {key: _read(key, text, types[key]) if key in types else text for key, text in texts.items()}


def field_types(method: type[Method]) -> dict[str, Any]:
    """Every flat key of a config with this method, and its type."""
    types: dict[str, Any] = {"method": str}
    for name, kind in typing.get_type_hints(TrainConfig).items():
        section = method if name == "method" else kind
        if dataclasses.is_dataclass(section):
            hints = typing.get_type_hints(section)
            types |= {f"{name}.{inner.name}": hints[inner.name] for inner in dataclasses.fields(section)}
        else:
            types[name] = kind
    return types


def cell_fields(config: TrainConfig) -> Flat:
    """The flat form without what only says where things lie (paths, downloads)."""
    places = {
        f"{top.name}.{inner.name}"
        for top in dataclasses.fields(config)
        if dataclasses.is_dataclass(getattr(config, top.name))
        for inner in dataclasses.fields(getattr(config, top.name))
        if not inner.metadata.get("cell", True)
    }
    return {key: value for key, value in flatten(config).items() if key not in places}


def cell_key(config: TrainConfig) -> str:
    """16 hex digits that name the cell: the hash of everything that decides the result, and of nothing else."""
    text = json.dumps(cell_fields(config), sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _method_named(name: Any, base: TrainConfig) -> Method:
    """The base's own method when it has this name, otherwise that method with its defaults."""
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(f"method must be a known method, got {name!r}{nearest(str(name), METHODS)}")
    return base.method if name == base.method.name else METHODS[name]()


def _built(prefix: str, make: Any, *args: Any, **values: Any) -> Any:
    try:
        return make(*args, **values)
    except ConfigError:
        raise
    except ValueError as error:  # a section's message starts with the field's name: complete it to the dotted key
        raise ConfigError(f"{prefix}{error}") from None


def _read(key: str, text: str, kind: Any) -> Scalar:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key} must be true or false, got {text!r}")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ConfigError(f"{key} must be {NAMES[kind]}, got {text!r}") from None
    return text
