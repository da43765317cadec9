"""TrainConfig and its sections: frozen, validated dataclasses. flat.py has their flat dotted form."""

from dataclasses import dataclass, field
from typing import Any, Literal

from jepa_train.base.errors import nearest, require
from jepa_train.base.validation import at_least, conform, later, not_negative, positive, ruled
from jepa_train.config.names import DATASET_NAMES, protocol_names, transfer_sets
from jepa_train.methods import LeJEPA, Method, enter_method
from jepa_train.methods.base import check_views

# Fields that do not affect the result (paths, speed, further measurements) are no part of the cell key.
_NO_CELL = {"cell": False}


def _fraction(default: float, meaning: str, *, most: float = 1) -> Any:
    return ruled(default, lambda value: 0 <= value <= most, f"is a {meaning} in [0, {most}]", "0 turns it off")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Dataset and splits. Val is a stratified, deterministic part of train; test is evaluated once, at the end.

    Data without a test split has no test metrics, or takes test_frac of its images as test, drawn by split_seed.
    """

    name: str = "digits"
    path: str = field(default="", metadata=_NO_CELL)
    download: bool = field(default=False, metadata=_NO_CELL)
    # hash of an image folder's file list, filled in by preflight; identifies the data in place of the path
    fingerprint: str = ""
    # hash of the images' content, where it is not the first one seen under this fingerprint
    content: str = later("", schema=2)
    # shorter side in pixels of the stored images, before augmentation
    image_size: int = ruled(12, lambda pixels: pixels >= 4, "must be at least 4 px", "try 16")
    # number of training images, a stratified sample that val is carved out of
    train_images: int = not_negative(0, "0 means all")
    val_frac: float = ruled(0.1, lambda share: 0 < share < 1, "must lie in (0, 1)", "try 0.1")
    on_corrupt: Literal["fail", "skip"] = field(default="fail", metadata=_NO_CELL)  # image files; skip counts them
    # share of the images held out as test, for data without a test split
    test_frac: float = later(
        ruled(0.0, lambda share: 0 <= share < 1, "must lie in [0, 1)", "0 means no test images"), schema=2
    )
    split_seed: int = later(0, schema=2)  # of that test split
    # folders of images: "square" stores the center of each, "whole" all of it, image_size being its shorter side
    fit: Literal["square", "whole"] = later("square", schema=3)
    # folders of images: shorter side of a second copy, from which local views are cropped; 0 is none
    local_image_size: int = later(0, schema=3)
    # folders of images: 3 of 8 is RGB, to which files of other kinds are converted; else all files must have just these
    channels: int = later(ruled(3, lambda count: 1 <= count <= 16, "must be 1 to 16", "3 is RGB"), schema=4)
    bits: int = later(ruled(8, lambda bits: bits in (8, 16), "must be 8 or 16", "8 is the default"), schema=4)
    # side of the middle square that evaluation sees, as a share of the shorter side
    eval_fov: float = later(1.0, schema=3)

    def __post_init__(self) -> None:
        conform(self)
        known = f"name must be a known dataset, got {self.name!r}{nearest(self.name, DATASET_NAMES)}"
        require(self.name in DATASET_NAMES, known)
        unused = f"split_seed must be 0 where test_frac is 0, got {self.split_seed}; set data.test_frac"
        require(self.test_frac > 0 or self.split_seed == 0, unused)
        size, local, fov = self.image_size, self.local_image_size, self.eval_fov
        finer = f"local_image_size must exceed image_size ({size}), got {local}; 0 means none"
        require(local == 0 or local > size, finer)
        seen = f"eval_fov must lie in (0, 1] and leave at least 4 of the {size} px of image_size, got {fov}; try 0.875"
        require(4 <= round(fov * size) <= size, seen)

    @property
    def is_rgb(self) -> bool:
        """True for 8-bit RGB, the default."""
        return (self.channels, self.bits) == (3, 8)


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Augmentation recipe: crops, colour and blur. Sizes in pixels, scales in area, else probabilities.

    The defaults suit digits, which are grey strokes: a flip makes another character, colour has no effect, blur and
    solarising destroy them. augmentation_presets.py has recipes for other images.
    """

    num_global: int = at_least(1, 2, "the papers use 2")
    num_local: int = not_negative(0, "0 means none")
    global_size: int = 12
    local_size: int = 8
    global_scale_min: float = 0.6
    global_scale_max: float = 1.0
    local_scale_min: float = 0.05
    local_scale_max: float = 0.3
    flip: float = _fraction(0.0, "probability")
    jitter: float = _fraction(0.8, "probability")  # its strengths follow
    brightness: float = _fraction(0.4, "jitter strength")
    contrast: float = _fraction(0.4, "jitter strength")
    saturation: float = _fraction(0.0, "jitter strength")
    hue: float = _fraction(0.0, "jitter strength", most=0.5)
    grayscale: float = _fraction(0.0, "probability")
    blur: float = _fraction(0.0, "probability")
    solarize: float = _fraction(0.0, "probability")

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
    """Encoder by name, and an MLP projector (Linear-BN-ReLU each, then Linear; 3 layers in the papers).

    Without a projector (projector_layers=0) z is the encoder's pooled output, or embed_dim's layer on it, and
    projector_dim has no effect. With fewer than two layers there is no hidden one: projector_norm has no effect, and
    projector_hidden has one on the predictor alone.
    """

    # timm's name, torchvision.models.NAME, or the dotted path of a function that returns an nn.Module; the default is
    # timm's ResNet with 0.4 M parameters: small images on CPU
    encoder: str = "test_resnet"
    small_stem: bool = True  # ResNets, ConvNeXts: 3x3 stride-1 stem without max-pooling, for images of about 32 px
    patch_size: int = not_negative(0, "0 means the encoder's own")  # ViTs: patch size in pixels
    register_tokens: int = not_negative(0, "0 means none")  # ViTs: besides the class token
    # stochastic depth, for encoders that have it
    drop_path: float = ruled(0.0, lambda share: 0 <= share < 1, "is a probability in [0, 1)", "0 turns it off")
    embed_dim: int = not_negative(0, "0 means none")  # width of a linear layer between encoder and projector
    projector_layers: int = at_least(0, 3, "0 means none")
    projector_hidden: int = at_least(1, 256, "try 256")
    projector_dim: int = at_least(1, 64, "try 64")
    # of the projector's hidden layers; without it they have a bias, as in SimCLR's and NCL's projectors
    projector_norm: Literal["batch", "none"] = later("batch", schema=3)
    predictor: bool = False  # MLP on z, Linear-BN-ReLU-Linear, that predicts the center from each view
    # SWA / EMA decay of the averaged network, which gives the center and is evaluated
    swa_decay: float = ruled(0.0, lambda decay: 0 <= decay < 1, "must lie in [0, 1)", "0 means no averaging")
    # first epoch whose weights enter the equal-weight mean of the epochs (SWA), which is evaluated; 0: none
    swa_start: int = later(not_negative(0, "0 means no averaging"), schema=3)
    # statistics of batch norm in training: over all views of one size, or of each view on its own
    batch_norm: Literal["all_views", "per_view"] = later("all_views", schema=3)
    # the last batch norm of each residual block starts with weight 0, as in timm; false: with 1, as in torchvision
    zero_init_last: bool = later(True, schema=3)
    # hash of the file of an encoder of the user's own, filled in by preflight; identifies its code
    encoder_hash: str = later("", schema=3)
    # initial weights of the encoder: a pretrained tag of timm, or a file by path or URL; "": random
    weights: str = field(default="", metadata=_NO_CELL)
    # the tag, or a hash of the file's content, filled in by preflight; identifies the weights in place of the path
    weights_id: str = later("", schema=4)
    channels_last: bool = field(default=True, metadata=_NO_CELL)
    compile: bool = field(default=False, metadata=_NO_CELL)

    def __post_init__(self) -> None:
        conform(self)
        both = f"swa_start must be 0 where swa_decay is positive, got {self.swa_start} and {self.swa_decay}; drop one"
        require(not (self.swa_start and self.swa_decay), both)
        other_paths = f"compile must be false where drop_path is positive, got drop_path={self.drop_path}; drop one"
        require(not (self.compile and self.drop_path), other_paths)  # compiled code drops other paths


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW or LARS; linear warm-up, then cosine from lr to final_lr_frac * lr. No hidden scaling of lr.

    With swa_lr the cosine ends after epoch model.swa_start; from there lr anneals to swa_lr and stays there.
    """

    name: Literal["adamw", "lars"] = "adamw"
    lr: float = positive(3e-3, "try 1e-3")
    weight_decay: float = not_negative(1e-2)
    warmup_epochs: float = not_negative(2.0, "0 means none")
    final_lr_frac: float = ruled(1e-3, lambda share: 0 <= share <= 1, "is a fraction of lr in [0, 1]", "try 1e-3")
    momentum: float = ruled(0.9, lambda share: 0 <= share < 1, "must lie in [0, 1)", "try 0.9")  # LARS
    # LARS: largest step as a fraction of a weight's norm, before lr
    lars_eta: float = positive(0.02, "the papers use 0.02")
    decay_all: bool = later(False, schema=3)  # AdamW: biases and norms too, as with model.parameters() in one group
    swa_lr: float = later(not_negative(0.0, "0 means that the schedule goes on"), schema=3)
    swa_anneal_epochs: int = later(not_negative(10, "0 sets swa_lr at once"), schema=3)

    def __post_init__(self) -> None:
        conform(self)
        excluded = "decay_all must be false for lars, got true; LARS leaves out biases and norms, as in the papers"
        require(not (self.decay_all and self.name == "lars"), excluded)
        unused = f"swa_anneal_epochs must be 10 where swa_lr is 0, got {self.swa_anneal_epochs}; set optim.swa_lr"
        require(self.swa_lr > 0 or self.swa_anneal_epochs == 10, unused)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Evaluation: online linear probes, trained along with the encoder, and protocols at the end."""

    lr: float = positive(1e-2, "try 1e-2")
    weight_decay: float = not_negative(1e-6)
    # of a ViT: tokens of its last two blocks, or, as of other encoders, the pooled output; "embedding": the projector's
    # input, which is the pooled output after the linear layer of model.embed_dim, if any
    features: Literal["blocks", "embedding"] = later("blocks", schema=3)
    norm: Literal["layer", "none"] = later("layer", schema=3)  # LayerNorm before the linear layer
    optimizer: Literal["adamw", "encoder"] = later("adamw", schema=3)  # encoder: the kind that optim.name says
    schedule: Literal["encoder", "constant"] = later("encoder", schema=3)  # constant: no decay after the warm-up
    protocols: str = field(default="linear,knn", metadata=_NO_CELL)  # some of PROTOCOL_NAMES
    transfer: str = field(default="", metadata=_NO_CELL)  # other datasets for linear probes: cifar100,dtd=FOLDER

    def __post_init__(self) -> None:
        conform(self)
        protocol_names(self.protocols)
        transfer_sets(self.transfer)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Complete config of a training run. The batch is global: the number of workers that share it changes no result."""

    method: Method = field(default_factory=LeJEPA)
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    epochs: int = not_negative(100, "0 evaluates the initial encoder")
    global_batch: int = at_least(2, 128, "try 128")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # bf16, fp16: autocast; fp16 with a gradient scaler
    seed: int = ruled(0, lambda seed: 0 <= seed < 2**31, "must lie in [0, 2**31)", "try 0")
    # epochs between two snapshots of the weights, which are kept beside the checkpoints; 0: none
    snapshot_epochs: int = field(default=0, metadata=_NO_CELL)

    def __post_init__(self) -> None:
        conform(self)
        enter_method(type(self.method))
        check_views(self.method, self.views.num_global, self.views.num_local)
        method, centered, no_center = self.method.name, self.method.uses_center, "its invariance has no center"
        local, num_local, decay = self.data.local_image_size, self.views.num_local, self.model.swa_decay
        start, lr, every = self.model.swa_start, self.optim.swa_lr, self.snapshot_epochs
        for holds, message in (
            (num_local or not local, f"data.local_image_size must be 0 without local views, got {local}; drop it"),
            (
                centered or not self.model.predictor,
                f"model.predictor must be false for {method}, got true; {no_center}",
            ),
            (centered or not decay, f"model.swa_decay must be 0 for {method}, got {decay}; {no_center}"),
            (every >= 0, f"snapshot_epochs must not be negative, got {every}; 0 keeps none"),
            (start <= self.epochs, f"model.swa_start must not exceed the {self.epochs} epochs, got {start}; lower it"),
            (start or not lr, f"optim.swa_lr must be 0 where model.swa_start is 0, got {lr}; set model.swa_start"),
        ):
            require(bool(holds), message)
        channels, bits = self.data.channels, self.data.bits
        for names, fit, key, why in (
            (("saturation", "hue", "grayscale"), channels == 3, f"data.channels={channels}", "needs 3 colors"),
            (("solarize",), bits == 8, f"data.bits={bits}", "inverts what exceeds half of the range, which few fill"),
        ):
            for name in names:
                value = getattr(self.views, name)
                rule = f"views.{name} must be 0 for {key}, got {value:g}; it {why}, so set views.{name}=0"
                require(fit or value == 0, rule)
