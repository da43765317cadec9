"""Where the command line and the sweeps start from: one complete config per dataset."""

from jepa_train.config import DataConfig, ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from jepa_train.methods import LeJEPA
from jepa_train.recipes import CIFAR_VIEWS, DIGITS_VIEWS

DIGITS = TrainConfig(
    method=LeJEPA(lamb=0.02, num_slices=256),
    data=DataConfig(name="digits", image_size=12, val_frac=0.15),
    views=DIGITS_VIEWS,
    # timm's own stem: a third of the time of the small one, and hardly less accurate on strokes this thick
    model=ModelConfig(encoder="test_resnet", small_stem=False, projector_hidden=256, projector_dim=64),
    optim=OptimConfig(lr=5e-3, weight_decay=1e-3, warmup_epochs=2),
    probe=ProbeConfig(lr=3e-2),
    epochs=50,
    global_batch=128,
)


def _colour(name: str) -> TrainConfig:
    """ResNet-18 on 32 px colour images, the setting of Rectified LpJEPA's CIFAR experiments (with AdamW)."""
    return TrainConfig(
        data=DataConfig(name=name, image_size=32),
        views=CIFAR_VIEWS,
        model=ModelConfig(encoder="resnet18", projector_hidden=512, projector_dim=512),
        optim=OptimConfig(lr=1e-3, weight_decay=1e-2, warmup_epochs=10),
        epochs=100,
        global_batch=256,
    )


PRESETS: dict[str, TrainConfig] = {
    "digits": DIGITS,
    **{name: _colour(name) for name in ("cifar10", "cifar100", "image_folder")},
}
