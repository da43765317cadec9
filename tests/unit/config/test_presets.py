"""Presets: each builds its encoder and has the values that its source prints.

Run: python -m pytest tests/unit/config/test_presets.py
"""

from typing import Any

import pytest

from jepa_train.base.errors import ConfigError
from jepa_train.config import ViewsConfig
from jepa_train.config.augmentation_presets import CIFAR_VIEWS, IMAGENET100_VIEWS, LEJEPA_MINIMAL_VIEWS, LEJEPA_VIEWS
from jepa_train.config.flat import flatten
from jepa_train.config.presets import PRESETS
from jepa_train.data import DATASETS
from jepa_train.model.network import feature_widths

KEYS = ["model.encoder", "optim.lr", "optim.weight_decay", "global_batch", "epochs", "model.projector_dim"]
# name -> the values of KEYS, then others; as printed, but for LeJEPA's batch on ImageNet-100, which is not
LEJEPA = {
    "lejepa_imagenette_vit_s8": (
        ("vit_small_patch8_224", 2e-3, 5e-2, 256, 800, 16),
        {
            **{"method.lamb": 0.02, "method.num_slices": 256, "method.t_max": 3.0, "method.domain": "half"},
            **{"model.drop_path": 0.1, "model.projector_hidden": 2048, "optim.final_lr_frac": 0.5},
            **{"optim.warmup_epochs": 1.0, "probe.lr": 1e-3, "probe.weight_decay": 1e-7},
            **{"probe.features": "embedding", "probe.norm": "layer", "probe.schedule": "constant"},
        },
    ),
    "lejepa_inet10_resnet50": (("resnet50", 5e-4, 5e-4, 512, 400, 512), {"method.lamb": 0.05}),
    "lejepa_imagenet100_resnet50": (("resnet50", 5e-4, 5e-4, 256, 400, 512), {"method.lamb": 0.02}),
    "lejepa_imagenet100_vit_s8_swa": (("vit_small_patch8_224", 5e-4, 5e-2, 256, 400, 512), {"method.lamb": 0.05}),
    "lejepa_imagenet1k_vit_l14": (("vit_large_patch14_224", 5e-4, 5e-2, 512, 100, 512), {"method.lamb": 0.05}),
}
LARS = {"optim.name": "lars", "optim.lars_eta": 0.02, "optim.momentum": 0.9, "optim.warmup_epochs": 10}
# The online probes of solo/methods/base.py: nn.Linear on raw features, on the optimizer of the backbone, without decay.
SOLO = {
    **{"probe.features": "embedding", "probe.norm": "none", "probe.optimizer": "encoder"},
    **{"probe.weight_decay": 0.0, "probe.schedule": "encoder"},
}
# by the first words of the preset: classifier_lr of its file, per 256 images
CLASSIFIER_LR = {
    "rectified_lpjepa_cifar100_resnet18": 0.01,
    "rectified_lpjepa_imagenet100_resnet50": 0.055,
    "rectified_lpjepa": 5e-3,
    "": 0.1,
}
# the same of the files in scripts/pretrain, whose lr is per 256 images
PER_256 = {
    "rectified_lpjepa_cifar100_resnet18": (("resnet18", 0.03, 1e-4, 256, 1000, 512), LARS | {"method.lamb_reg": 250.0}),
    "rectified_lpjepa_cifar100_vit_small": (("vit_small_patch16_224", 5e-4, 1e-4, 128, 1000, 512), {}),
    "rectified_lpjepa_cifar100_convnext_small": (("convnext_small", 5e-4, 1e-4, 128, 1000, 512), {}),
    "rectified_lpjepa_imagenet100_resnet50": (("resnet50", 0.165, 1e-4, 128, 1000, 2048), LARS),
    "rectified_lpjepa_imagenet100_vit_small": (("vit_small_patch16_224", 5e-4, 1e-4, 128, 1000, 2048), {}),
    "rectified_lpjepa_imagenet100_convnext_small": (("convnext_small", 5e-4, 1e-4, 128, 1000, 2048), {}),
    # baselines: the encoders of Table 1 and the epochs of App. L
    "vicreg_cifar100_resnet18": (("resnet18", 0.3, 1e-4, 256, 1000, 2048), LARS | {"method.lamb_var": 2 * 25.0}),
    "vicreg_imagenet100_resnet50": (("resnet50", 0.3, 1e-4, 128, 1000, 2048), LARS | {"method.lamb_inv": 25.0}),
    "simclr_cifar100_resnet18": (("resnet18", 0.4, 1e-4, 256, 1000, 256), LARS | {"model.projector_hidden": 2048}),
    "simclr_imagenet100_resnet50": (("resnet50", 0.3, 1e-4, 128, 1000, 512), LARS | {"model.projector_hidden": 4096}),
    "ncl_cifar100_resnet18": (("resnet18", 0.4, 1e-4, 256, 200, 256), LARS | {"method.nonneg": "rep_relu"}),
}
# one preset per encoder, its options and views; ViT-L, which takes 4 s, differs from ViT-S in its sizes alone
ENCODERS = {
    (preset.model.encoder, preset.model.patch_size, preset.model.small_stem): name
    for name, preset in PRESETS.items()
    if "large" not in preset.model.encoder
}


def test_every_dataset_has_a_preset_and_every_preset_a_source() -> None:
    assert PRESETS.keys() == DATASETS.keys() | LEJEPA.keys() | PER_256.keys()
    assert all(PRESETS[name].data.name == name for name in DATASETS)


@pytest.mark.parametrize("name", ENCODERS.values())
def test_every_preset_builds_its_encoder_for_its_views(name: str) -> None:
    widths = feature_widths(PRESETS[name])
    model, probe = PRESETS[name].model, PRESETS[name].probe
    own = model.embed_dim if probe.features == "embedding" else 2 * widths.pooled if "vit" in model.encoder else 0
    assert widths.features == (own or widths.pooled)


@pytest.mark.parametrize("name", LEJEPA | PER_256)
def test_presets_have_the_values_that_their_sources_print(name: str) -> None:
    values, others = (LEJEPA | PER_256)[name]
    expected = dict(zip(KEYS, values, strict=True)) | others
    if name in PER_256:
        classifier_lr = next(lr for start, lr in CLASSIFIER_LR.items() if name.startswith(start))
        expected |= SOLO | {"optim.lr": pytest.approx(values[1] * values[3] / 256)}
        expected["probe.lr"] = pytest.approx(classifier_lr * values[3] / 256)
    if name.startswith("rectified"):
        rest = {"method.num_slices": 8192, "method.lamb_inv": 25.0, "method.lamb_reg": 125.0}
        expected = rest | {"model.projector_hidden": values[-1]} | expected
    flat = flatten(PRESETS[name])
    assert {key: flat[key] for key in expected} == expected


def printed(views: ViewsConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Jitter's probability and strengths, grayscale, blur, solarize, flip; then the number and crops of the views."""
    jitter = (views.jitter, views.brightness, views.contrast, views.saturation, views.hue)
    crops = (views.num_global, views.num_local, views.global_size, views.global_scale_min, views.global_scale_max)
    return (*jitter, views.grayscale, views.blur, views.solarize, views.flip), crops


@pytest.mark.parametrize(
    ("views", "augmentation", "crops"),
    [
        (LEJEPA_VIEWS, (0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5), (2, 6, 224, 0.3, 1.0)),  # README
        (LEJEPA_MINIMAL_VIEWS, (0.8, 0.8, 0.8, 0.8, 0.2, 0.2, 0.5, 0.2, 0.5), (4, 0, 128, 0.08, 1.0)),  # MINIMAL.md
        (CIFAR_VIEWS, (0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.0, 0.1, 0.5), (2, 0, 32, 0.2, 1.0)),  # .._cifar100.yaml
        (IMAGENET100_VIEWS, (0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.1, 0.5), (2, 0, 224, 0.2, 1.0)),  # .._imagenet.yaml
    ],
)
def test_recipes_have_the_values_that_their_sources_print(views: ViewsConfig, augmentation: Any, crops: Any) -> None:
    assert printed(views) == (augmentation, crops)


def test_a_misspelt_preset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"got 'lejepa_imagenet_vit_s8'; did you mean 'lejepa_imagenette_vit_s8'\?$"):
        PRESETS["lejepa_imagenet_vit_s8"]
