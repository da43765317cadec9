"""TrainConfig: frozen dataclasses, one nesting level, that cannot be wrong. flat.py has their flat dotted form."""

import functools
import operator
from dataclasses import dataclass, field
from typing import Any, Literal

from jepa_train.base.errors import nearest, require
from jepa_train.base.validation import at_least, conform, conformed, not_negative, positive, ruled
from jepa_train.config.names import DATASET_NAMES, protocol_names, transfer_sets
from jepa_train.methods import METHODS, LeJEPA, Method

# where a thing lies, how fast it is computed, what else is measured: what decides no result is no part of the cell key
_NO_CELL = {"cell": False}


def _probability(default: float) -> Any:
    return ruled(default, lambda value: 0 <= value <= 1, "is a probability in [0, 1]", "0 turns it off")


def _strength(default: float) -> Any:
    return ruled(default, lambda value: 0 <= value <= 1, "is a jitter strength in [0, 1]", "0 turns it off")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images. Val is carved out of train, stratified and deterministic; test is evaluated once, at the end."""

    name: str = "digits"
    path: str = field(default="", metadata=_NO_CELL)
    download: bool = field(default=False, metadata=_NO_CELL)
    fingerprint: str = ""  # hash of an image folder's file list, filled in by preflight: the path is not the identity
    # pixels; what is stored, before augmentation
    image_size: int = ruled(12, lambda pixels: pixels >= 4, "must be at least 4 px", "try 16")
    # so many of the training images, stratified, val carved out of them
    train_images: int = not_negative(0, "0 means all")
    val_frac: float = ruled(0.1, lambda share: 0 < share < 1, "must lie in (0, 1)", "try 0.1")
    on_corrupt: Literal["fail", "skip"] = field(default="fail", metadata=_NO_CELL)  # of image files; skip counts them

    def __post_init__(self) -> None:
        conform(self)
        known = f"name must be a known dataset, got {self.name!r}{nearest(self.name, DATASET_NAMES)}"
        require(self.name in DATASET_NAMES, known)


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The augmentation recipe: crops, colour and blur. Sizes in pixels, scales in area, the rest in probability.

    The defaults suit digits, grey strokes: a flip makes another character, colour has no effect, and blur or
    solarising hide what little there is. augmentation_presets.py has those of other images.
    """

    num_global: int = at_least(1, 2, "the papers use 2")
    num_local: int = not_negative(0, "0 means none")
    global_size: int = 12
    local_size: int = 8
    global_scale_min: float = 0.6
    global_scale_max: float = 1.0
    local_scale_min: float = 0.05
    local_scale_max: float = 0.3
    flip: float = _probability(0.0)
    jitter: float = _probability(0.8)  # the strengths follow
    brightness: float = _strength(0.4)
    contrast: float = _strength(0.4)
    saturation: float = _strength(0.0)
    hue: float = ruled(0.0, lambda turn: 0 <= turn <= 0.5, "is a jitter strength in [0, 0.5]", "0 turns it off")
    grayscale: float = _probability(0.0)
    blur: float = _probability(0.0)
    solarize: float = _probability(0.0)

    def __post_init__(self) -> None:
        conform(self)
        for kind in ("global", "local"):
            size, low, high = (getattr(self, f"{kind}_{part}") for part in ("size", "scale_min", "scale_max"))
            require(size >= 4, f"{kind}_size must be at least 4 px, got {size}; try 16")
            require(
                0 < low <= high <= 1,
                f"{kind}_scale_min must satisfy 0 < {kind}_scale_min <= {kind}_scale_max <= 1, got {low} and {high}",
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Encoder by timm name, and an MLP projector (Linear-BN-ReLU each, then Linear; the papers use 3 layers)."""

    encoder: str = "test_resnet"  # timm's 0.4 M-parameter ResNet: small images on CPU
    small_stem: bool = True  # ResNets, ConvNeXts: 3x3 stride-1 stem without max-pooling, for images of 32 px or so
    patch_size: int = not_negative(0, "0 means the encoder's own")  # pixels, of a ViT's patches
    register_tokens: int = not_negative(0, "0 means none")  # of a ViT, besides its class token
    # stochastic depth, where the encoder has it
    drop_path: float = ruled(0.0, lambda share: 0 <= share < 1, "is a probability in [0, 1)", "0 turns it off")
    embed_dim: int = not_negative(0, "0 means none")  # width of a linear layer between encoder and projector
    projector_layers: int = at_least(1, 3, "try 3")
    projector_hidden: int = at_least(1, 256, "try 256")
    projector_dim: int = at_least(1, 64, "try 64")
    predictor: bool = False  # an MLP on z, Linear-BN-ReLU-Linear, that predicts the centre from each view
    # of the averaged network, which gives the centre and is what is evaluated
    swa_decay: float = ruled(0.0, lambda decay: 0 <= decay < 1, "must lie in [0, 1)", "0 means no averaging")
    channels_last: bool = field(default=True, metadata=_NO_CELL)
    compile: bool = field(default=False, metadata=_NO_CELL)

    def __post_init__(self) -> None:
        conform(self)
        require(
            not (self.compile and self.drop_path),
            f"compile must be false where drop_path is positive, got drop_path={self.drop_path}; compiled code drops "
            "other paths",
        )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW or LARS; linear warm-up, then cosine from lr to final_lr_frac * lr. No hidden scaling of lr."""

    name: Literal["adamw", "lars"] = "adamw"
    lr: float = positive(3e-3, "try 1e-3")
    weight_decay: float = not_negative(1e-2)
    warmup_epochs: float = not_negative(2.0, "0 means none")
    final_lr_frac: float = ruled(1e-3, lambda share: 0 <= share <= 1, "is a fraction of lr in [0, 1]", "try 1e-3")
    momentum: float = ruled(0.9, lambda share: 0 <= share < 1, "must lie in [0, 1)", "try 0.9")  # of LARS
    # LARS: the largest step as a fraction of a weight's norm, before lr
    lars_eta: float = positive(0.02, "the papers use 0.02")

    def __post_init__(self) -> None:
        conform(self)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How embeddings are judged: by online linear probes (on the schedule of the encoder), and at the end."""

    lr: float = positive(1e-2, "try 1e-2")
    weight_decay: float = not_negative(1e-6)
    protocols: str = field(default="linear,knn", metadata=_NO_CELL)  # PROTOCOL_NAMES, run at the end
    transfer: str = field(default="", metadata=_NO_CELL)  # other data sets, judged at the end: cifar100,dtd=FOLDER

    def __post_init__(self) -> None:
        conform(self)
        protocol_names(self.protocols)
        transfer_sets(self.transfer)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, complete. The global batch is the unit; how many workers share it changes no result."""

    method: Method = field(default_factory=LeJEPA)
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    epochs: int = not_negative(100, "0 evaluates the initial encoder")
    global_batch: int = at_least(2, 128, "try 128")
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = ruled(0, lambda seed: 0 <= seed < 2**31, "must lie in [0, 2**31)", "try 0")

    def __post_init__(self) -> None:
        conform(self)
        conformed("method", self.method, functools.reduce(operator.or_, METHODS.values()))
        self.method.check_views(self.views.num_global, self.views.num_local)
        require(
            self.method.centred or not self.model.predictor,
            f"model.predictor must be false for {self.method.name}, got true; its invariance has no centre to predict",
        )
        decay = self.model.swa_decay
        require(
            decay == 0 or self.method.centred,
            f"model.swa_decay must be 0 for {self.method.name}, got {decay}; its invariance has no centre",
        )
