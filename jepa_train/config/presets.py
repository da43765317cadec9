"""Base configs of the command line and the sweeps: complete, one per dataset and one per recipe of the papers.

A paper's preset cites where its numbers are printed and names, after "Missing:", what its authors used and no field
here expresses. Common to all of them: val is carved out of the training images, a tenth of them; the views deviate as
augmentation_presets.py says. ImageNet and its subsets are image folders. The online probes are the authors':
LeJEPA's have a LayerNorm and are on AdamW, as the defaults; Rectified LpJEPA's and its baselines' are linear layers on
raw pooled features and raw z, without decay, on the encoder's optimizer at classifier_lr (solo/methods/base.py).
"""

from dataclasses import replace

from jepa_train.base.errors import ConfigError, nearest
from jepa_train.config import DataConfig, ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from jepa_train.config import augmentation_presets as recipes
from jepa_train.methods import NCL, LeJEPA, RectifiedLpJEPA, SimCLR, VICReg, VISReg

DIGITS = TrainConfig(
    method=LeJEPA(lamb=0.02, num_slices=256),
    data=DataConfig(name="digits", image_size=12, val_frac=0.15),
    views=recipes.DIGITS_VIEWS,
    # timm's own stem: a third of the time of the small one, and hardly less accurate on strokes this thick
    model=ModelConfig(encoder="test_resnet", small_stem=False, projector_hidden=256, projector_dim=64),
    optim=OptimConfig(lr=5e-3, weight_decay=1e-3, warmup_epochs=2),
    probe=ProbeConfig(lr=3e-2),
    epochs=50,
    global_batch=128,
)

# ResNet-18 on 32 px colour images, the setting of Rectified LpJEPA's CIFAR experiments (with AdamW)
_COLOUR = TrainConfig(
    data=DataConfig(name="cifar10", image_size=32),
    views=recipes.CIFAR_VIEWS,
    model=ModelConfig(encoder="resnet18", projector_hidden=512, projector_dim=512),
    optim=OptimConfig(lr=1e-3, weight_decay=1e-2, warmup_epochs=10),
    epochs=100,
    global_batch=256,
)

# The same for images without labels, of which there may be few, with any number of channels and bits
_UNLABELLED = replace(
    _COLOUR,
    data=DataConfig(name="unlabelled_folder", image_size=32),
    views=recipes.CHANNEL_VIEWS,
    probe=ProbeConfig(protocols=""),
    global_batch=64,
)


class _Presets(dict[str, TrainConfig]):
    """Presets by name. An unknown name raises ConfigError with the nearest one."""

    def __missing__(self, name: object) -> TrainConfig:
        remedy = nearest(str(name), self) or "; jepa_train/config/presets.py lists them, try 'digits'"
        raise ConfigError(f"preset must be a known preset, got {name!r}{remedy}")


# the default presets of the command line, by data.name; those of the papers follow
PRESETS = _Presets(
    {
        name: replace(base, data=replace(base.data, name=name))
        for base, names in (
            (DIGITS, "digits digits_0_4 digits_5_9"),
            (_COLOUR, "cifar10 cifar100 image_folder"),
            (_UNLABELLED, "unlabelled_folder"),
        )
        for name in names.split()
    }
)

# LeJEPA, MINIMAL.md: 90.7 % on imagenette. Its cosine ends at eta_min=1e-3, half of lr and all of the probe's, which
# is on the 512-d output of the encoder's head.
PRESETS["lejepa_imagenette_vit_s8"] = TrainConfig(
    method=LeJEPA(lamb=0.02, num_slices=256, num_knots=17, t_max=3.0, domain="half"),
    data=DataConfig(name="image_folder", image_size=160, fit="whole"),
    views=recipes.LEJEPA_MINIMAL_VIEWS,
    model=ModelConfig(
        encoder="vit_small_patch8_224", drop_path=0.1, embed_dim=512, projector_hidden=2048, projector_dim=16
    ),
    optim=OptimConfig(lr=2e-3, weight_decay=5e-2, warmup_epochs=1, final_lr_frac=0.5, decay_all=True),
    probe=ProbeConfig(lr=1e-3, weight_decay=1e-7, features="embedding", schedule="constant"),
    epochs=800,
    global_batch=256,
    precision="bf16",
)

# VISReg, section 3.2 and App. B: the setting of its analyses on imagenette, "lr 1e-3 without decay". The text names
# method, encoder, crops, batch, lr and epochs; the rest is from the authors' code (HaiyuWu/visreg, train_inet10_toy.py
# and visreg/data/multicrop.py), whose views are LeJEPA's minimal ones. Its imagenette.yaml has batches of 64, 128
# dimensions and a cosine. Missing: gradients clipped at norm 1.
PRESETS["visreg_imagenette_vit_s8"] = replace(
    PRESETS["lejepa_imagenette_vit_s8"],
    method=VISReg(lamb=0.6, num_slices=4096),
    model=ModelConfig(
        encoder="vit_small_patch8_224", small_stem=False, drop_path=0.1, projector_hidden=2048, projector_dim=256
    ),
    optim=OptimConfig(lr=1e-3, weight_decay=5e-2, warmup_epochs=1, final_lr_frac=1.0),
    probe=ProbeConfig(lr=1e-3, weight_decay=1e-7, features="embedding"),
)

# LeJEPA, README "Training configuration" (lr, decay, floor) and scripts/launch_inet10.py (the rest; it sweeps lamb over
# .01 .02 .05 .1, lr over 3e-3 1e-4 and weight decay over 3e-2 1e-5, the paper's Experiment Details 1 lr over 5e-3 5e-4
# and weight decay over 1e-1 1e-2 1e-5). multi_crop=false: all 8 views are global. Warm-up, probe lr and the projector's
# hidden width are not printed: 10 epochs, this project's 1e-2, MINIMAL.md's 2048. The script sets no quadrature; this
# is that of the paper's Alg. 1. The evaluation is not printed either; this is the usual one, Resize 256 and CenterCrop
# 224. Crops are from files of any size there, here from 256 px; for local views data.local_image_size=375 is about that
# of ImageNet's files (71 GB for 126,000 images). Missing: autostop=true, whose meaning is not published.
_INET10 = PRESETS["lejepa_inet10_resnet50"] = TrainConfig(
    method=LeJEPA(lamb=0.05, num_slices=1000),
    data=DataConfig(name="image_folder", image_size=256, fit="whole", eval_fov=0.875),
    views=replace(recipes.LEJEPA_VIEWS, num_global=8, num_local=0),
    model=ModelConfig(encoder="resnet50", small_stem=False, embed_dim=512, projector_hidden=2048, projector_dim=512),
    optim=OptimConfig(lr=5e-4, weight_decay=5e-4, warmup_epochs=10),
    epochs=400,
    global_batch=512,
    precision="bf16",
)

# LeJEPA, Fig. 8 / Table 7, its best: 84.68 with 4 views. Method and optimiser as the README recommends. The batch is
# not printed: 256, as in the report of a reproduction (issue 29 of the authors' repository).
PRESETS["lejepa_imagenet100_resnet50"] = replace(
    _INET10,
    method=LeJEPA(lamb=0.02),
    views=replace(recipes.LEJEPA_VIEWS, num_global=4, num_local=0),
    global_batch=256,
)

# LeJEPA, Table 4, ViT-S with SWA and a projector of 3 layers: 84.12. The table prints neither views nor batch nor the
# decay of the average: the README's 2 + 6, 256 as above, and .999, a mean over the last 1000 steps or so.
PRESETS["lejepa_imagenet100_vit_s8_swa"] = replace(
    _INET10,
    method=LeJEPA(lamb=0.05),
    views=replace(recipes.LEJEPA_VIEWS, local_size=96),
    model=replace(_INET10.model, encoder="vit_small_patch8_224", small_stem=True, swa_decay=0.999),
    optim=OptimConfig(lr=5e-4, weight_decay=5e-2, warmup_epochs=10),
    global_batch=256,
)

# LeJEPA, Table 1 (scripts/launch_views_ablation.md and its likes, which sweep num_slices, knots and widths around
# this): the recommended t_max 5, 17 knots and 1024 slices. Missing: patch_mask_ratio .3, teacher_student, autostop.
PRESETS["lejepa_imagenet1k_vit_l14"] = replace(
    _INET10,
    method=LeJEPA(lamb=0.05, num_slices=1024, num_knots=17, t_max=5.0),
    views=replace(recipes.LEJEPA_VIEWS, global_size=238),
    model=replace(_INET10.model, encoder="vit_large_patch14_224", drop_path=0.1),
    optim=OptimConfig(lr=5e-4, weight_decay=5e-2, warmup_epochs=10),
    epochs=100,
)

# "LeJEPA Implementation Guide": SIGReg on the output of torchvision's ResNet-50, without a projector. The guide draws
# one crop for a batch of pictures of one size; here each image has its own. Its trainer's 1024 slices never reach its
# loss, which takes SIGReg's default, 256. Its optional SWA for ViTs is model.swa_start and optim.swa_lr=5e-5. Missing:
# a cosine that falls per epoch; here it falls per step.
PRESETS["lejepa_guide"] = TrainConfig(
    method=LeJEPA(lamb=0.05, num_slices=1024, num_knots=17, t_max=5.0),
    data=DataConfig(name="image_folder", image_size=256, fit="whole"),
    views=recipes.LEJEPA_GUIDE_VIEWS,
    model=ModelConfig(
        encoder="torchvision.models.resnet50",
        small_stem=False,
        zero_init_last=False,
        projector_layers=0,
        batch_norm="per_view",
    ),
    optim=OptimConfig(lr=5e-4, weight_decay=1e-2, warmup_epochs=0, final_lr_frac=0.0, decay_all=True),
    probe=ProbeConfig(protocols="linear,knn,plain_sgd"),
    epochs=100,
    global_batch=256,
    snapshot_epochs=10,
)


# the authors' code (solo/methods/base.py) forwards the views one by one
_PER_VIEW = ModelConfig(batch_norm="per_view")
_RAW_PROBE = ProbeConfig(lr=2.5e-3, weight_decay=0.0, features="embedding", norm="none", optimizer="encoder")

# Rectified LpJEPA, scripts/pretrain/cifar/rectified_lpjepa_cifar100_vit.yaml. The learning rates in its files are per
# 256 images and scaled by solo/args/pretrain.py; here they are what the optimiser gets, for 128 images half of 5e-4 and
# of 5e-3 (classifier_lr). The file leaves ViT-S its patches of 16 px and its 224 px, which 32 px do not fit: 4 px here.
# Warm-up and floor are solo-learn's defaults. Missing: a warm-up from 3e-5; here it starts at lr / steps.
PRESETS["rectified_lpjepa_cifar100_vit_small"] = TrainConfig(
    method=RectifiedLpJEPA(p=1.0, mu=0.0, sigma_mode="gn", num_slices=8192, lamb_inv=25.0, lamb_reg=125.0),
    data=DataConfig(name="cifar100", image_size=32),
    views=replace(recipes.CIFAR_VIEWS, solarize=0.0),
    model=replace(_PER_VIEW, encoder="vit_small_patch16_224", patch_size=4, projector_hidden=512, projector_dim=512),
    optim=OptimConfig(lr=2.5e-4, weight_decay=1e-4, warmup_epochs=10, final_lr_frac=0.0, decay_all=True),
    probe=_RAW_PROBE,
    epochs=1000,
    global_batch=128,
    precision="fp16",
)

# rectified_lpjepa_cifar100_convnext.yaml. Its encoder is timm's, made for 224 px: 32 px end as a single one.
PRESETS["rectified_lpjepa_cifar100_convnext_small"] = replace(
    PRESETS["rectified_lpjepa_cifar100_vit_small"],
    model=replace(_PER_VIEW, encoder="convnext_small", small_stem=False, projector_hidden=512, projector_dim=512),
)

_LARS = OptimConfig(
    name="lars", lr=0.03, momentum=0.9, lars_eta=0.02, weight_decay=1e-4, warmup_epochs=10, final_lr_frac=0.0
)

# solo/backbones/resnet/resnet.py is torchvision's
_RESNET18 = replace(_PER_VIEW, encoder="resnet18", zero_init_last=False, projector_hidden=512, projector_dim=512)
_RESNET50 = replace(_RESNET18, encoder="resnet50", small_stem=False, projector_hidden=2048, projector_dim=2048)

# rectified_lpjepa_cifar100.yaml: LARS, lamb_reg 250 (the other files and MINIMAL.md's last line have 125). Missing:
# a stem that pads by 2 and makes 34 of 32 px.
PRESETS["rectified_lpjepa_cifar100_resnet18"] = replace(
    PRESETS["rectified_lpjepa_cifar100_vit_small"],
    method=RectifiedLpJEPA(p=1.0, mu=0.0, sigma_mode="gn", num_slices=8192, lamb_inv=25.0, lamb_reg=250.0),
    views=recipes.CIFAR_VIEWS,
    model=_RESNET18,
    optim=_LARS,
    probe=replace(_RAW_PROBE, lr=0.01),
    global_batch=256,
)

# scripts/pretrain/imagenet-100/rectified_lpjepa_vit.yaml; Resize 256 and CenterCrop 224 for the evaluation are in
# solo/data/classification_dataloader.py:184. Images that solo keeps in memory are at most 320 px long
# (solo/data/pretrain_dataloader.py:92), others of their own size; here the shorter side has 256 px.
PRESETS["rectified_lpjepa_imagenet100_vit_small"] = replace(
    PRESETS["rectified_lpjepa_cifar100_vit_small"],
    data=DataConfig(name="image_folder", image_size=256, fit="whole", eval_fov=0.875),
    views=recipes.IMAGENET100_VIEWS,
    model=replace(_PER_VIEW, encoder="vit_small_patch16_224", projector_hidden=2048, projector_dim=2048),
)

# rectified_lpjepa_convnext.yaml
PRESETS["rectified_lpjepa_imagenet100_convnext_small"] = replace(
    PRESETS["rectified_lpjepa_imagenet100_vit_small"],
    model=replace(_PER_VIEW, encoder="convnext_small", small_stem=False, projector_hidden=2048, projector_dim=2048),
)

# rectified_lpjepa_imagenet.yaml, Table 1's: lr .165 per 256 images is the paper's .0825 (App. L) for 128, and
# classifier_lr .055 is .0275
PRESETS["rectified_lpjepa_imagenet100_resnet50"] = replace(
    PRESETS["rectified_lpjepa_imagenet100_vit_small"],
    model=_RESNET50,
    optim=replace(_LARS, lr=0.0825),
    probe=replace(_RAW_PROBE, lr=0.0275),
)

_VICREG = VICReg(lamb_inv=25.0, lamb_var=50.0, lamb_cov=1.0)

# Rectified LpJEPA's baselines, scripts/pretrain/cifar/vicreg_cifar100.yaml. Its solo-learn sums the variance over the
# views: 25 there is 50 here. This, simclr.yaml and ncl.yaml have learning rates per 256 images, and classifier_lr .1.
PRESETS["vicreg_cifar100_resnet18"] = replace(
    PRESETS["rectified_lpjepa_cifar100_resnet18"],
    method=_VICREG,
    model=replace(_RESNET18, projector_hidden=2048, projector_dim=2048),
    optim=replace(_LARS, lr=0.3),
    probe=replace(_RAW_PROBE, lr=0.1),
)

# simclr.yaml, which names CIFAR-10 and says to change it
PRESETS["simclr_cifar100_resnet18"] = replace(
    PRESETS["vicreg_cifar100_resnet18"],
    method=SimCLR(temperature=0.2),
    views=recipes.SIMCLR_CIFAR_VIEWS,
    model=replace(_RESNET18, projector_layers=2, projector_hidden=2048, projector_dim=256, projector_norm="none"),
    optim=replace(_LARS, lr=0.4),
)

# ncl.yaml, which stops at 200 epochs where the others have 1000. Missing: its further probes, MLPs of 3 layers
# (mlp_probe); the paper's numbers are the linear ones.
PRESETS["ncl_cifar100_resnet18"] = replace(
    PRESETS["simclr_cifar100_resnet18"], method=NCL(temperature=0.2, nonneg="rep_relu"), epochs=200
)

# scripts/pretrain/imagenet-100/vicreg.yaml, but for its ResNet-18 and 400 epochs: the rows of Table 1 are of ResNet-50
# and, as the target's (App. L), of 1000 epochs. .3 per 256 images is .15 for 128, and classifier_lr .1 is .05.
PRESETS["vicreg_imagenet100_resnet50"] = replace(
    PRESETS["rectified_lpjepa_imagenet100_resnet50"],
    method=_VICREG,
    optim=replace(_LARS, lr=0.15),
    probe=replace(_RAW_PROBE, lr=0.05),
)

# simclr.yaml beside it, with the same two changes
PRESETS["simclr_imagenet100_resnet50"] = replace(
    PRESETS["vicreg_imagenet100_resnet50"],
    method=SimCLR(temperature=0.2),
    views=recipes.SIMCLR_IMAGENET100_VIEWS,
    model=replace(_RESNET50, projector_layers=2, projector_hidden=4096, projector_dim=512, projector_norm="none"),
)

# Rectified LpJEPA, MINIMAL.md at e31c91c of the authors' repository: its notebook on CIFAR-100, with timm's own stem.
# It has fp16 on GPUs; on a CPU set precision=fp32, as it does. Missing: slices drawn for each view and a target shared
# by them; here, as in solo/methods/rectified_lpjepa.py, the views share the slices and each has its target.
PRESETS["rectified_lpjepa_guide"] = TrainConfig(
    method=RectifiedLpJEPA(p=1.0, mu=0.0, sigma_mode="gn", num_slices=256, lamb_inv=25.0, lamb_reg=125.0),
    data=DataConfig(name="cifar100", image_size=32),
    views=recipes.RECTIFIED_GUIDE_VIEWS,
    model=replace(_PER_VIEW, encoder="resnet18", small_stem=False, projector_hidden=512, projector_dim=512),
    optim=OptimConfig(lr=1e-3, weight_decay=1e-4, warmup_epochs=0, final_lr_frac=1.0, decay_all=True),
    epochs=100,
    global_batch=256,
    precision="fp16",
)
