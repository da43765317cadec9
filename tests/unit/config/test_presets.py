"""Presets: each builds its encoder and has the values that its source prints.

Run: python -m pytest tests/unit/config/test_presets.py
"""

import math

import pytest

from jepa_train.base.errors import ConfigError
from jepa_train.config import ViewsConfig
from jepa_train.config.augmentation_presets import (
    CIFAR_VIEWS,
    IMAGENET100_VIEWS,
    LEJEPA_MINIMAL_VIEWS,
    LEJEPA_SMALL_VIEWS,
    LEJEPA_VIEWS,
)
from jepa_train.config.flat import flatten
from jepa_train.config.presets import PRESETS
from jepa_train.data import DATASETS
from jepa_train.model.network import feature_widths

# name -> encoder, lr, weight decay, batch, epochs, projector output, weight (lamb or lamb_reg), slices; as printed, but
# for the batch on ImageNet-100, which is not
LEJEPA_PRINTED = {
    "lejepa_imagenette_vit_s8": ("vit_small_patch8_224", 2e-3, 5e-2, 256, 800, 16, 0.02, 256),
    "lejepa_inet10_resnet50": ("resnet50", 5e-4, 5e-4, 512, 400, 512, 0.05, 1000),
    "lejepa_imagenet100_resnet50": ("resnet50", 5e-4, 5e-4, 256, 400, 512, 0.02, 1024),
    "lejepa_imagenet100_vit_s8_swa": ("vit_small_patch8_224", 5e-4, 5e-2, 256, 400, 512, 0.05, 1024),
    "lejepa_imagenet1k_vit_l14": ("vit_large_patch14_224", 5e-4, 5e-2, 512, 100, 512, 0.05, 1024),
}
# the same of the files in scripts/pretrain, whose lr is per 256 images
RECTIFIED_PRINTED = {
    "rectified_lpjepa_cifar100_resnet18": ("resnet18", 0.03, 1e-4, 256, 1000, 512, 250.0, 8192),
    "rectified_lpjepa_cifar100_vit_small": ("vit_small_patch16_224", 5e-4, 1e-4, 128, 1000, 512, 125.0, 8192),
    "rectified_lpjepa_cifar100_convnext_small": ("convnext_small", 5e-4, 1e-4, 128, 1000, 512, 125.0, 8192),
    "rectified_lpjepa_imagenet100_resnet50": ("resnet50", 0.165, 1e-4, 128, 1000, 2048, 125.0, 8192),
    "rectified_lpjepa_imagenet100_vit_small": ("vit_small_patch16_224", 5e-4, 1e-4, 128, 1000, 2048, 125.0, 8192),
    "rectified_lpjepa_imagenet100_convnext_small": ("convnext_small", 5e-4, 1e-4, 128, 1000, 2048, 125.0, 8192),
}
# the same of the baselines' files: encoder (Table 1's), lr per 256 images, batch, epochs (App. L's), hidden, output
BASELINES_PRINTED = {
    "vicreg_cifar100_resnet18": ("resnet18", 0.3, 256, 1000, 2048, 2048),
    "vicreg_imagenet100_resnet50": ("resnet50", 0.3, 128, 1000, 2048, 2048),
    "simclr_cifar100_resnet18": ("resnet18", 0.4, 256, 1000, 2048, 256),
    "simclr_imagenet100_resnet50": ("resnet50", 0.3, 128, 1000, 4096, 512),
    "ncl_cifar100_resnet18": ("resnet18", 0.4, 256, 200, 2048, 256),
}
# one preset per encoder, its options and views
ENCODERS = {
    (preset.model.encoder, preset.model.patch_size, preset.model.small_stem, preset.views): name
    for name, preset in PRESETS.items()
}


def test_every_dataset_and_method_has_a_preset() -> None:
    printed = LEJEPA_PRINTED.keys() | RECTIFIED_PRINTED.keys() | BASELINES_PRINTED.keys()
    assert PRESETS.keys() == DATASETS.keys() | printed
    assert all(PRESETS[name].data.name == name for name in DATASETS)


@pytest.mark.parametrize("name", ENCODERS.values())
def test_every_preset_builds_its_encoder_for_its_views(name: str) -> None:
    widths = feature_widths(PRESETS[name])
    assert widths.features == (2 if "vit" in PRESETS[name].model.encoder else 1) * widths.pooled


@pytest.mark.parametrize("name", LEJEPA_PRINTED | RECTIFIED_PRINTED)
def test_presets_have_the_values_that_their_sources_print(name: str) -> None:
    flat = flatten(PRESETS[name])
    encoder, lr, weight_decay, batch, epochs, dim, weight, slices = (LEJEPA_PRINTED | RECTIFIED_PRINTED)[name]
    rectified = name in RECTIFIED_PRINTED
    expected = {
        "method": "rectified_lpjepa" if rectified else "lejepa",
        "method.lamb_reg" if rectified else "method.lamb": weight,
        "method.num_slices": slices,
        "model.encoder": encoder,
        "model.projector_dim": dim,
        "optim.weight_decay": weight_decay,
        "global_batch": batch,
        "epochs": epochs,
        "precision": "bf16",
    }
    assert expected.items() <= flat.items()
    assert math.isclose(flat["optim.lr"], lr * batch / 256 if rectified else lr)
    if rectified:
        assert {
            "method.lamb_inv": 25.0,
            "model.projector_hidden": dim,
            "optim.warmup_epochs": 10,
        }.items() <= flat.items()
        lars = {"optim.name": "lars", "optim.lars_eta": 0.02, "optim.momentum": 0.9}
        assert (lars.items() <= flat.items()) == encoder.startswith("resnet")


@pytest.mark.parametrize("name", BASELINES_PRINTED)
def test_baselines_have_the_values_of_their_files(name: str) -> None:
    config = PRESETS[name]
    encoder, lr, batch, epochs, hidden, dim = BASELINES_PRINTED[name]
    assert (config.model.encoder, config.model.projector_hidden, config.model.projector_dim) == (encoder, hidden, dim)
    assert (config.optim.name, config.optim.weight_decay, config.optim.lars_eta) == ("lars", 1e-4, 0.02)
    assert (config.global_batch, config.epochs, config.views.num_global) == (batch, epochs, 2)
    assert math.isclose(config.optim.lr, lr * batch / 256)
    weights = {
        "vicreg": {"method.lamb_inv": 25.0, "method.lamb_var": 2 * 25.0, "method.lamb_cov": 1.0},
        "simclr": {"method.temperature": 0.2},
        "ncl": {"method.temperature": 0.2, "method.nonneg": "rep_relu"},
    }
    assert weights[config.method.name].items() <= flatten(config).items()


def test_minimal_md_in_its_details() -> None:
    config = PRESETS["lejepa_imagenette_vit_s8"]
    assert (config.method.num_knots, config.method.t_max, config.method.domain) == (17, 3.0, "half")
    assert (config.model.drop_path, config.model.projector_hidden) == (0.1, 2048)
    assert (config.optim.warmup_epochs, config.probe.lr, config.probe.weight_decay) == (1.0, 1e-3, 1e-7)
    assert config.optim.lr * config.optim.final_lr_frac == 1e-3  # eta_min


def augmentation(views: ViewsConfig) -> tuple[float, ...]:
    """Jitter's probability and strengths, then grayscale, blur, solarize, flip."""
    jitter = (views.jitter, views.brightness, views.contrast, views.saturation, views.hue)
    return (*jitter, views.grayscale, views.blur, views.solarize, views.flip)


def crops(views: ViewsConfig) -> tuple[float, ...]:
    return (views.num_global, views.num_local, views.global_size, views.global_scale_min, views.global_scale_max)


def test_recipes_have_the_values_that_their_sources_print() -> None:
    assert augmentation(LEJEPA_VIEWS) == (0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5)  # README
    assert crops(LEJEPA_VIEWS) == (2, 6, 224, 0.3, 1.0)
    assert (LEJEPA_VIEWS.local_size, LEJEPA_VIEWS.local_scale_min, LEJEPA_VIEWS.local_scale_max) == (98, 0.05, 0.3)
    assert augmentation(LEJEPA_MINIMAL_VIEWS) == (0.8, 0.8, 0.8, 0.8, 0.2, 0.2, 0.5, 0.2, 0.5)  # MINIMAL.md
    assert crops(LEJEPA_MINIMAL_VIEWS) == (4, 0, 128, 0.08, 1.0)
    assert augmentation(CIFAR_VIEWS) == (0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.0, 0.1, 0.5)  # rectified_lpjepa_cifar100.yaml
    assert crops(CIFAR_VIEWS) == (2, 0, 32, 0.2, 1.0)
    assert augmentation(IMAGENET100_VIEWS) == (0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.1, 0.5)  # .._imagenet.yaml
    assert crops(IMAGENET100_VIEWS) == (2, 0, 224, 0.2, 1.0)
    assert crops(LEJEPA_SMALL_VIEWS) == (2, 6, 32, 0.3, 1.0)
    assert PRESETS["rectified_lpjepa_cifar100_vit_small"].views.solarize == 0  # .._cifar100_vit.yaml


def test_a_misspelt_preset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as error:
        PRESETS["lejepa_imagenet_vit_s8"]
    assert str(error.value) == (
        "preset must be a known preset, got 'lejepa_imagenet_vit_s8'; did you mean 'lejepa_imagenette_vit_s8'?"
    )
