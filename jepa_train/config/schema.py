"""TrainConfig: frozen dataclasses, one nesting level, that cannot be wrong. flat.py has their flat dotted form."""

import functools
import operator
from dataclasses import dataclass, field
from typing import Literal

from jepa_train.base.errors import nearest, require
from jepa_train.base.validation import conform, conformed
from jepa_train.config.names import DATASET_NAMES, protocol_names, transfer_sets
from jepa_train.methods import METHODS, LeJEPA, Method

# where a thing lies, how fast it is computed, what else is measured: what decides no result is no part of the cell key
_NO_CELL = {"cell": False}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images. Val is carved out of train, stratified and deterministic; test is evaluated once, at the end."""

    name: str = "digits"
    path: str = field(default="", metadata=_NO_CELL)
    download: bool = field(default=False, metadata=_NO_CELL)
    fingerprint: str = ""  # hash of an image folder's file list, filled in by preflight: the path is not the identity
    image_size: int = 12  # pixels; what is stored, before augmentation
    train_images: int = 0  # so many of the training images, stratified, val carved out of them; 0: all
    val_frac: float = 0.1
    on_corrupt: Literal["fail", "skip"] = field(default="fail", metadata=_NO_CELL)  # of image files; skip counts them

    def __post_init__(self) -> None:
        conform(self)
        known = f"name must be a known dataset, got {self.name!r}{nearest(self.name, DATASET_NAMES)}"
        require(self.name in DATASET_NAMES, known)
        require(self.image_size >= 4, f"image_size must be at least 4 px, got {self.image_size}; try 16")
        require(self.train_images >= 0, f"train_images must not be negative, got {self.train_images}; 0 means all")
        require(0 < self.val_frac < 1, f"val_frac must lie in (0, 1), got {self.val_frac}; try 0.1")


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The augmentation recipe: crops, colour and blur. Sizes in pixels, scales in area, the rest in probability.

    The defaults suit digits, grey strokes: a flip makes another character, colour has no effect, and blur or
    solarising hide what little there is. augmentation_presets.py has those of other images.
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
    """Encoder by timm name, and an MLP projector (Linear-BN-ReLU each, then Linear; the papers use 3 layers)."""

    encoder: str = "test_resnet"  # timm's 0.4 M-parameter ResNet: small images on CPU
    small_stem: bool = True  # ResNets, ConvNeXts: 3x3 stride-1 stem without max-pooling, for images of 32 px or so
    patch_size: int = 0  # pixels, of a ViT's patches; 0: the encoder's own
    register_tokens: int = 0  # of a ViT, besides its class token
    drop_path: float = 0.0  # stochastic depth, where the encoder has it
    embed_dim: int = 0  # width of a linear layer between encoder and projector; 0: none
    projector_layers: int = 3
    projector_hidden: int = 256
    projector_dim: int = 64
    predictor: bool = False  # an MLP on z, Linear-BN-ReLU-Linear, that predicts the centre from each view
    swa_decay: float = 0.0  # of the averaged network, which gives the centre and is what is evaluated; 0: none
    channels_last: bool = field(default=True, metadata=_NO_CELL)
    compile: bool = field(default=False, metadata=_NO_CELL)

    def __post_init__(self) -> None:
        conform(self)
        for name, usual in (("projector_layers", 3), ("projector_hidden", 256), ("projector_dim", 64)):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}; try {usual}")
        for name in ("embed_dim", "register_tokens"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative, got {value}; 0 means none")
        require(
            self.patch_size >= 0, f"patch_size must not be negative, got {self.patch_size}; 0 means the encoder's own"
        )
        require(0 <= self.drop_path < 1, f"drop_path is a probability in [0, 1), got {self.drop_path}; 0 turns it off")
        require(
            not (self.compile and self.drop_path),
            f"compile must be false where drop_path is positive, got drop_path={self.drop_path}; compiled code drops "
            "other paths",
        )
        require(0 <= self.swa_decay < 1, f"swa_decay must lie in [0, 1), got {self.swa_decay}; 0 means no averaging")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW or LARS; linear warm-up, then cosine from lr to final_lr_frac * lr. No hidden scaling of lr."""

    name: Literal["adamw", "lars"] = "adamw"
    lr: float = 3e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 2.0
    final_lr_frac: float = 1e-3
    momentum: float = 0.9  # of LARS
    lars_eta: float = 0.02  # LARS: the largest step as a fraction of a weight's norm, before lr

    def __post_init__(self) -> None:
        conform(self)
        require(self.lr > 0, f"lr must be positive, got {self.lr}; try 1e-3")
        require(0 <= self.momentum < 1, f"momentum must lie in [0, 1), got {self.momentum}; try 0.9")
        require(self.lars_eta > 0, f"lars_eta must be positive, got {self.lars_eta}; the papers use 0.02")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}; 0 turns it off")
        require(self.warmup_epochs >= 0, f"warmup_epochs must not be negative, got {self.warmup_epochs}; 0 means none")
        require(
            0 <= self.final_lr_frac <= 1,
            f"final_lr_frac is a fraction of lr in [0, 1], got {self.final_lr_frac}; try 1e-3",
        )


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How embeddings are judged: by online linear probes (on the schedule of the encoder), and at the end."""

    lr: float = 1e-2
    weight_decay: float = 1e-6
    protocols: str = field(default="linear,knn", metadata=_NO_CELL)  # PROTOCOL_NAMES, run at the end
    transfer: str = field(default="", metadata=_NO_CELL)  # other data sets, judged at the end: cifar100,dtd=FOLDER

    def __post_init__(self) -> None:
        conform(self)
        require(self.lr > 0, f"lr must be positive, got {self.lr}; try 1e-2")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}; 0 turns it off")
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
        require(
            self.method.centred or not self.model.predictor,
            f"model.predictor must be false for {self.method.name}, got true; its invariance has no centre to predict",
        )
        decay = self.model.swa_decay
        require(
            decay == 0 or self.method.centred,
            f"model.swa_decay must be 0 for {self.method.name}, got {decay}; its invariance has no centre",
        )
