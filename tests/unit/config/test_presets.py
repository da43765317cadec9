"""Presets: each builds its encoder and agrees with its source field by field.

Run: python -m pytest tests/unit/config/test_presets.py
"""

from collections.abc import Mapping

import pytest

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Flat, Scalar, flatten
from jepa_train.config.presets import PRESETS
from jepa_train.data import DATASETS
from jepa_train.model.network import feature_widths

# Below: the authors' values by this project's names, each group with the file that prints it. Files in scripts/pretrain
# and solo are of YilunKuang/rectified-lp-jepa at 5ae61ab, the others of rbalestr-lab/lejepa at eddffdd.


def crops_and_colours(
    size: int, scale_min: float, strengths: tuple[float, ...], *, blur: float, solarize: float
) -> Flat:
    """Augmentation of global views; all sources have the same probabilities of flip, jitter and grayscale."""
    names = ("brightness", "contrast", "saturation", "hue")
    jitter = dict(zip(names, strengths, strict=True)) | {"jitter": 0.8}
    crop = {"global_size": size, "global_scale_min": scale_min, "global_scale_max": 1.0, "flip": 0.5}
    rest = {"grayscale": 0.2, "blur": blur, "solarize": solarize}
    return {f"views.{key}": value for key, value in (crop | jitter | rest).items()}


MODERATE, STRONG = (0.4, 0.4, 0.2, 0.1), (0.8, 0.8, 0.8, 0.2)
# scripts/pretrain/cifar/rectified_lpjepa_cifar100.yaml, vicreg_cifar100.yaml
CIFAR = crops_and_colours(32, 0.2, MODERATE, blur=0.0, solarize=0.1)
# scripts/pretrain/cifar/rectified_lpjepa_cifar100_vit.yaml, rectified_lpjepa_cifar100_convnext.yaml
CIFAR_VIT = crops_and_colours(32, 0.2, MODERATE, blur=0.0, solarize=0.0)
# scripts/pretrain/cifar/augmentations/symmetric.yaml
CIFAR_SYMMETRIC = crops_and_colours(32, 0.08, STRONG, blur=0.5, solarize=0.0)
# scripts/pretrain/imagenet-100/rectified_lpjepa_imagenet.yaml, .._vit.yaml, .._convnext.yaml, vicreg.yaml
IMAGENET = crops_and_colours(224, 0.2, MODERATE, blur=0.5, solarize=0.1)
# scripts/pretrain/imagenet-100/augmentations/symmetric.yaml
IMAGENET_SYMMETRIC = crops_and_colours(224, 0.08, STRONG, blur=0.5, solarize=0.0)

# solo/methods/base.py: schedule; online probes are nn.Linear on raw features, on the optimizer of the backbone
SOLO = {
    **{"optim.warmup_epochs": 10.0, "optim.final_lr_frac": 0.0, "probe.weight_decay": 0.0},
    **{"probe.features": "embedding", "probe.norm": "none", "probe.optimizer": "encoder", "probe.schedule": "encoder"},
    "model.batch_norm": "per_view",  # training_step: base_training_step for each crop
    **{"optim.weight_decay": 1e-4, "precision": "fp16", "epochs": 1000},
}
ADAMW = {"optim.name": "adamw", "optim.decay_all": True}  # exclude_bias_n_norm_wd: False, solo/methods/base.py
LARS = {"optim.name": "lars", "optim.lars_eta": 0.02, "optim.momentum": 0.9}  # momentum: solo/args/pretrain.py
CIFAR100 = SOLO | {"data.name": "cifar100", "data.image_size": 32}
# crops from whole pictures; T_val of solo/data/classification_dataloader.py: Resize(256), CenterCrop(224)
IMAGENET100 = SOLO | {"data.name": "image_folder", "data.fit": "whole", "data.eval_fov": 224 / 256}
RECTIFIED = {
    **{"method": "rectified_lpjepa", "method.p": 1.0, "method.mu": 0.0, "method.sigma_mode": "gn"},
    **{"method.num_slices": 8192, "method.slice_kind": "random", "method.target": "rgg", "method.rectified": True},
    **{"method.lamb_inv": 25.0, "method.lamb_reg": 125.0},
}
# solo's sums the variance over the views, ours takes the mean
VICREG = {"method": "vicreg", "method.lamb_inv": 25.0, "method.lamb_var": 2 * 25.0, "method.lamb_cov": 1.0}
# projector_type "standard" (solo/methods/simclr.py) and "mlp_2_wo_batchnorm" (solo/methods/ncl.py)
SIMCLR = {"method": "simclr", "method.temperature": 0.2, "model.projector_norm": "none"}
NCL = SIMCLR | {"method": "ncl", "method.nonneg": "rep_relu"}

# README.md: "Data augmentation and views", "Training Configuration", "Linear Probe Evaluation"
README = {
    **{"method": "lejepa", "data.name": "image_folder", "data.fit": "whole"},
    **{"views.num_global": 2, "views.num_local": 6},
    **crops_and_colours(224, 0.3, MODERATE, blur=0.5, solarize=0.2),
    **{"views.local_size": 98, "views.local_scale_min": 0.05, "views.local_scale_max": 0.3},
    **{"optim.lr": 5e-4, "optim.weight_decay": 5e-4, "optim.final_lr_frac": 1e-3, "precision": "bf16"},
    **{"probe.features": "blocks", "probe.norm": "layer", "probe.optimizer": "adamw", "probe.schedule": "encoder"},
    "probe.weight_decay": 1e-6,
}
VIT = {"optim.weight_decay": 5e-2}
# scripts/launch_inet10.py; multi_crop=false: all views are global
INET10 = README | {
    **{"method.num_slices": 1000, "model.embed_dim": 512, "model.projector_dim": 512, "model.drop_path": 0.0},
    **{"views.num_global": 8, "views.num_local": 0, "epochs": 400, "global_batch": 512},
}
# scripts/launch_epps_ablation.md, launch_views_ablation.md; t_max, knots and slices: the paper's recommendation
INET1K = README | {
    **{"method.lamb": 0.05, "method.num_slices": 1024, "method.num_knots": 17, "method.t_max": 5.0},
    **{"views.global_size": 238, "model.encoder": "vit_large_patch14_224", "model.drop_path": 0.1},
    **{"model.embed_dim": 512, "model.projector_dim": 512, "epochs": 100, "global_batch": 512},
}
# MINIMAL.md
MINIMAL = {
    **{"method": "lejepa", "method.lamb": 0.02, "method.num_slices": 256, "method.num_knots": 17},
    **{"method.t_max": 3.0, "method.domain": "half", "data.name": "image_folder", "data.image_size": 160},
    **{"data.fit": "whole", "data.eval_fov": 1.0},  # Resize(128), CenterCrop(128)
    # RandomApply([RandomSolarize(128)], p=.2), and RandomSolarize's own p is .5
    **crops_and_colours(128, 0.08, STRONG, blur=0.5, solarize=0.2 * 0.5),
    **{"views.num_global": 4, "views.num_local": 0},
    **{"model.encoder": "vit_small_patch8_224", "model.drop_path": 0.1, "model.embed_dim": 512},
    **{"model.projector_layers": 3, "model.projector_hidden": 2048, "model.projector_dim": 16},
    # eta_min=1e-3 of lr=2e-3
    **{
        "optim.lr": 2e-3,
        "optim.weight_decay": 5e-2,
        "optim.decay_all": True,
        "optim.warmup_epochs": 1.0,
        "optim.final_lr_frac": 0.5,
    },
    **{"probe.features": "embedding", "probe.norm": "layer", "probe.schedule": "constant"},
    **{"probe.lr": 1e-3, "probe.weight_decay": 1e-7, "epochs": 800, "global_batch": 256, "precision": "bf16"},
}
# VISReg: arXiv 2606.02572, section 3.2 and App. B; the rest: HaiyuWu/visreg, train_inet10_toy.py, visreg/data
VISREG = {
    **{"method": "visreg", "method.lamb": 0.6, "method.num_slices": 4096, "data.name": "image_folder"},
    **{"data.image_size": 160, "data.fit": "whole", "data.eval_fov": 1.0},
    # RandomApply([RandomSolarize(.5)], p=.2), and RandomSolarize's own p is .5
    **crops_and_colours(128, 0.08, STRONG, blur=0.5, solarize=0.2 * 0.5),
    **{"views.num_global": 4, "views.num_local": 0, "model.encoder": "vit_small_patch8_224", "model.drop_path": 0.1},
    **{"model.projector_layers": 3, "model.projector_hidden": 2048, "model.projector_dim": 256},
    **{"optim.lr": 1e-3, "optim.weight_decay": 5e-2, "optim.warmup_epochs": 1.0, "optim.final_lr_frac": 1.0},
    **{"probe.features": "embedding", "probe.norm": "layer", "probe.schedule": "encoder"},
    **{"probe.lr": 1e-3, "probe.weight_decay": 1e-7, "epochs": 800, "global_batch": 256, "precision": "bf16"},
}
# "LeJEPA Implementation Guide"
LEJEPA_GUIDE = {
    **{"method": "lejepa", "method.lamb": 0.05, "method.num_slices": 1024, "method.num_knots": 17, "method.t_max": 5.0},
    **{
        "method.domain": "symmetric",
        "data.name": "image_folder",
        "data.fit": "whole",
        "views.num_global": 2,
        "views.num_local": 6,
    },
    **crops_and_colours(224, 0.4, (0.4, 0.4, 0.4, 0.1), blur=0.0, solarize=0.0),
    **{"views.local_size": 96, "views.local_scale_min": 0.05, "views.local_scale_max": 0.4, "views.jitter": 1.0},
    **{"model.encoder": "torchvision.models.resnet50", "model.small_stem": False, "model.projector_layers": 0},
    **{"model.batch_norm": "per_view", "model.zero_init_last": False},
    **{"optim.name": "adamw", "optim.lr": 5e-4, "optim.weight_decay": 1e-2, "optim.decay_all": True},
    **{"optim.warmup_epochs": 0.0, "optim.final_lr_frac": 0.0, "epochs": 100, "global_batch": 256, "precision": "fp32"},
    **{"snapshot_epochs": 10, "probe.protocols": "linear,knn,plain_sgd"},
}
# MINIMAL.md of YilunKuang/rectified-lp-jepa at e31c91c
RECTIFIED_GUIDE = RECTIFIED | {
    **{"method.num_slices": 256, "data.name": "cifar100", "data.image_size": 32, "views.num_global": 2},
    **crops_and_colours(32, 0.08, (0.4, 0.4, 0.4, 0.1), blur=0.0, solarize=0.0),
    **{"views.jitter": 1.0, "views.grayscale": 0.0, "model.encoder": "resnet18", "model.small_stem": False},
    **{"model.projector_layers": 3, "model.projector_hidden": 512, "model.projector_dim": 512},
    "model.batch_norm": "per_view",
    **{"optim.name": "adamw", "optim.lr": 1e-3, "optim.weight_decay": 1e-4, "optim.decay_all": True},
    **{"optim.warmup_epochs": 0.0, "optim.final_lr_frac": 1.0, "epochs": 100, "global_batch": 256, "precision": "fp16"},
}


def per_256(lr: float, probe_lr: float, batch: int) -> Flat:
    """The learning rates of the files are per 256 images: solo/args/pretrain.py."""
    return {"optim.lr": lr * batch / 256, "probe.lr": probe_lr * batch / 256, "global_batch": batch}


# solo/backbones/resnet/resnet.py: zero_init_residual of torchvision is false
TORCHVISION = {"model.zero_init_last": False}


def network(encoder: str, layers: int, hidden: int, dim: int, *, small_stem: bool = False) -> Flat:
    widths = {"model.projector_layers": layers, "model.projector_hidden": hidden, "model.projector_dim": dim}
    resnet = TORCHVISION if encoder.startswith("resnet") else {}
    return {"model.encoder": encoder, "model.small_stem": small_stem} | resnet | widths


# preset -> what its sources print; what else it has: deviations stated in presets.py, and fields that nobody prints
SIZE = {"data.image_size": 256}
VIT_STEM = {"model.small_stem": True}  # without effect on a ViT
UNPRINTED = SIZE | {"data.eval_fov": 224 / 256} | {"optim.warmup_epochs": 10.0, "model.projector_hidden": 2048}
RECIPES: dict[str, tuple[Mapping[str, Scalar], Mapping[str, Scalar]]] = {
    # scripts/pretrain/cifar/rectified_lpjepa_cifar100.yaml
    "rectified_lpjepa_cifar100_resnet18": (
        CIFAR100
        | CIFAR
        | RECTIFIED
        | {"method.lamb_reg": 250.0}
        | LARS
        | per_256(0.03, 0.01, 256)
        | network("resnet18", 3, 512, 512, small_stem=True),
        {},
    ),
    # scripts/pretrain/cifar/rectified_lpjepa_cifar100_vit.yaml
    "rectified_lpjepa_cifar100_vit_small": (
        CIFAR100
        | CIFAR_VIT
        | RECTIFIED
        | ADAMW
        | per_256(5e-4, 5e-3, 128)
        | network("vit_small_patch16_224", 3, 512, 512),
        VIT_STEM | {"model.patch_size": 4},
    ),
    # scripts/pretrain/cifar/rectified_lpjepa_cifar100_convnext.yaml
    "rectified_lpjepa_cifar100_convnext_small": (
        CIFAR100 | CIFAR_VIT | RECTIFIED | ADAMW | per_256(5e-4, 5e-3, 128) | network("convnext_small", 3, 512, 512),
        {},
    ),
    # scripts/pretrain/imagenet-100/rectified_lpjepa_imagenet.yaml
    "rectified_lpjepa_imagenet100_resnet50": (
        IMAGENET100 | IMAGENET | RECTIFIED | LARS | per_256(0.165, 0.055, 128) | network("resnet50", 3, 2048, 2048),
        SIZE,
    ),
    # scripts/pretrain/imagenet-100/rectified_lpjepa_vit.yaml
    "rectified_lpjepa_imagenet100_vit_small": (
        IMAGENET100
        | IMAGENET
        | RECTIFIED
        | ADAMW
        | per_256(5e-4, 5e-3, 128)
        | network("vit_small_patch16_224", 3, 2048, 2048),
        SIZE | VIT_STEM,
    ),
    # scripts/pretrain/imagenet-100/rectified_lpjepa_convnext.yaml
    "rectified_lpjepa_imagenet100_convnext_small": (
        IMAGENET100
        | IMAGENET
        | RECTIFIED
        | ADAMW
        | per_256(5e-4, 5e-3, 128)
        | network("convnext_small", 3, 2048, 2048),
        SIZE,
    ),
    # scripts/pretrain/cifar/vicreg_cifar100.yaml
    "vicreg_cifar100_resnet18": (
        CIFAR100 | CIFAR | VICREG | LARS | per_256(0.3, 0.1, 256) | network("resnet18", 3, 2048, 2048, small_stem=True),
        {},
    ),
    # scripts/pretrain/cifar/simclr.yaml
    "simclr_cifar100_resnet18": (
        CIFAR100
        | CIFAR_SYMMETRIC
        | SIMCLR
        | LARS
        | per_256(0.4, 0.1, 256)
        | network("resnet18", 2, 2048, 256, small_stem=True),
        {},
    ),
    # scripts/pretrain/cifar/ncl.yaml
    "ncl_cifar100_resnet18": (
        CIFAR100
        | CIFAR_SYMMETRIC
        | NCL
        | LARS
        | per_256(0.4, 0.1, 256)
        | network("resnet18", 2, 2048, 256, small_stem=True)
        | {"epochs": 200},
        {},
    ),
    # scripts/pretrain/imagenet-100/vicreg.yaml, with the encoder of Table 1 and the epochs of App. L
    "vicreg_imagenet100_resnet50": (
        IMAGENET100
        | IMAGENET
        | VICREG
        | LARS
        | per_256(0.3, 0.1, 128)
        | network("resnet18", 3, 2048, 2048)
        | {"epochs": 400},
        SIZE | {"model.encoder": "resnet50", "epochs": 1000},
    ),
    # scripts/pretrain/imagenet-100/simclr.yaml, likewise
    "simclr_imagenet100_resnet50": (
        IMAGENET100
        | IMAGENET_SYMMETRIC
        | SIMCLR
        | LARS
        | per_256(0.3, 0.1, 128)
        | network("resnet18", 2, 4096, 512)
        | {"epochs": 400},
        SIZE | {"model.encoder": "resnet50", "epochs": 1000},
    ),
    "lejepa_imagenette_vit_s8": (MINIMAL, VIT_STEM),
    "visreg_imagenette_vit_s8": (VISREG, VIT_STEM),
    "lejepa_guide": (LEJEPA_GUIDE, SIZE),
    "rectified_lpjepa_guide": (RECTIFIED_GUIDE, {}),
    # lamb and encoder are swept; the script's lr and weight_decay too, these are the README's
    "lejepa_inet10_resnet50": (
        INET10,
        UNPRINTED | {"method.lamb": 0.05, "model.encoder": "resnet50", "model.small_stem": False},
    ),
    # the paper, Table 7: encoder, views, lamb and epochs
    "lejepa_imagenet100_resnet50": (
        INET10 | {"method.num_slices": 1024, "method.lamb": 0.02, "views.num_global": 4, "model.encoder": "resnet50"},
        UNPRINTED | {"model.small_stem": False, "global_batch": 256},
    ),
    # the paper, Table 4: encoder, SWA and depth of the projector; 96 px: its text
    "lejepa_imagenet100_vit_s8_swa": (
        INET10
        | VIT
        | {"method.num_slices": 1024, "views.num_global": 2, "views.num_local": 6, "views.local_size": 96}
        | {"method.lamb": 0.05, "model.encoder": "vit_small_patch8_224", "model.projector_layers": 3},
        UNPRINTED | VIT_STEM | {"global_batch": 256, "model.swa_decay": 0.999},
    ),
    "lejepa_imagenet1k_vit_l14": (INET1K | VIT, UNPRINTED | {"model.small_stem": False}),
}
# one preset per encoder, its options and views; ViT-L, which takes 4 s, differs from ViT-S in its sizes alone
ENCODERS = {
    (preset.model.encoder, preset.model.patch_size, preset.model.small_stem): name
    for name, preset in PRESETS.items()
    if "large" not in preset.model.encoder
}


def test_every_dataset_has_a_preset_and_every_preset_a_source() -> None:
    assert PRESETS.keys() == DATASETS.keys() | RECIPES.keys()
    assert all(PRESETS[name].data.name == name for name in DATASETS)


@pytest.mark.parametrize("name", ENCODERS.values())
def test_every_preset_builds_its_encoder_for_its_views(name: str) -> None:
    widths = feature_widths(PRESETS[name])
    model, probe = PRESETS[name].model, PRESETS[name].probe
    own = model.embed_dim if probe.features == "embedding" else 2 * widths.pooled if "vit" in model.encoder else 0
    assert widths.features == (own or widths.pooled)


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_of_a_preset_is_its_authors_or_a_stated_deviation(name: str) -> None:
    printed, others = RECIPES[name]
    found = flatten(PRESETS[name])
    expected = {**flatten(TrainConfig(method=type(PRESETS[name].method)())), **printed, **others}
    assert {key: found[key] for key in found if found[key] != expected[key]} == {}
    assert {key: value for key, value in others.items() if printed.get(key) == value} == {}


def test_a_misspelt_preset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"got 'lejepa_imagenet_vit_s8'; did you mean 'lejepa_imagenette_vit_s8'\?$"):
        PRESETS["lejepa_imagenet_vit_s8"]
