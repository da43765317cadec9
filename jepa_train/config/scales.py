"""Base configs of the papers' studies at the scales below the paper's own.

A study lists the values that it sweeps at each scale; its base is the paper's preset at "paper", and a config from here
at the others. Results of different scales are not comparable.
"""

import dataclasses

from jepa_train.base.scale_names import SCALES as SCALES
from jepa_train.base.scale_names import Scale as Scale
from jepa_train.config import DataConfig, ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from jepa_train.config.augmentation_presets import CIFAR_VIEWS, LEJEPA_SMALL_VIEWS
from jepa_train.config.presets import DIGITS, PRESETS
from jepa_train.methods import LeJEPA, RectifiedLpJEPA

SEEDS: dict[Scale, tuple[int, ...]] = {"mini": (0, 1, 2), "small": (0, 1, 2), "lab": (0, 1, 2), "paper": (0,)}

_SMALL = TrainConfig(
    method=LeJEPA(lamb=0.02, num_slices=256),
    data=DataConfig(name="cifar10", image_size=32, train_images=5000),
    views=dataclasses.replace(LEJEPA_SMALL_VIEWS, num_global=2, num_local=0),
    # timm's own stem: an eighth of the small one's time
    model=ModelConfig(encoder="test_resnet", small_stem=False, projector_hidden=256, projector_dim=64),
    optim=OptimConfig(lr=5e-3, weight_decay=1e-3, warmup_epochs=1),
    probe=ProbeConfig(lr=1e-2),
    epochs=12,
    global_batch=128,
)
_LAB = dataclasses.replace(
    PRESETS["cifar10"],
    method=LeJEPA(lamb=0.02),
    views=dataclasses.replace(LEJEPA_SMALL_VIEWS, num_global=2, num_local=0),
    precision="bf16",
)


def transferred(base: TrainConfig) -> TrainConfig:
    """Digits 0 to 4 with transfer to 5 to 9: the one pair of datasets that needs no download."""
    data = dataclasses.replace(base.data, name="digits_0_4")
    return dataclasses.replace(base, data=data, probe=dataclasses.replace(base.probe, transfer="digits_5_9"))


LEJEPA: dict[Scale, TrainConfig] = {"mini": dataclasses.replace(DIGITS, epochs=12), "small": _SMALL, "lab": _LAB}

# LEJEPA with a ViT of 16 patches
VITS: dict[Scale, TrainConfig] = {
    scale: dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, encoder=encoder, patch_size=patch_size),
        optim=dataclasses.replace(base.optim, lr=1e-3, weight_decay=5e-2),
    )
    for (scale, base), encoder, patch_size in zip(
        LEJEPA.items(), ("test_vit", "test_vit", "vit_tiny_patch16_224"), (3, 8, 8), strict=True
    )
}


def _rectified(base: TrainConfig, *, num_slices: int) -> TrainConfig:
    """Rectified LpJEPA and the other methods of its tables; batch norms as its authors have them."""
    model = dataclasses.replace(base.model, batch_norm="per_view", zero_init_last=False)
    return dataclasses.replace(base, method=RectifiedLpJEPA(num_slices=num_slices), model=model)


RECTIFIED: dict[Scale, TrainConfig] = {
    "mini": _rectified(dataclasses.replace(DIGITS, epochs=20), num_slices=256),
    "small": _rectified(dataclasses.replace(_SMALL, views=CIFAR_VIEWS), num_slices=256),
    "lab": _rectified(dataclasses.replace(_LAB, views=CIFAR_VIEWS), num_slices=8192),
}
