"""Named augmentation recipes: values to put into TrainConfig(views=...), one per kind of images.

Deviations from the papers, common to all: crops are resampled bilinearly with antialiasing (Rectified LpJEPA:
bicubically), the blur's kernel is a tenth of the image wide (LeJEPA's README names none), pixels are normalised to
[-2, 2] on every dataset, and the flip comes first.
"""

import dataclasses

from jepa_train.config import ViewsConfig

DIGITS_VIEWS = ViewsConfig()

# Rectified LpJEPA, scripts/pretrain/cifar/rectified_lpjepa_cifar100.yaml (symmetric, no blur); also for LeJEPA with 2
# views. The files for ViTs and ConvNeXts turn solarize off.
CIFAR_VIEWS = ViewsConfig(
    num_global=2,
    num_local=0,
    global_size=32,
    global_scale_min=0.2,
    global_scale_max=1.0,
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grayscale=0.2,
    blur=0.0,
    solarize=0.1,
)

# CIFAR_VIEWS without what assumes 3 colors or a filled range: for images of any number of channels and bits
CHANNEL_VIEWS = dataclasses.replace(CIFAR_VIEWS, saturation=0.0, hue=0.0, grayscale=0.0, solarize=0.0)

# Rectified LpJEPA, scripts/pretrain/imagenet-100/rectified_lpjepa_imagenet.yaml, and those for ViT and ConvNeXt alike
IMAGENET100_VIEWS = dataclasses.replace(CIFAR_VIEWS, global_size=224, blur=0.5)

# SimCLR's own, also for NCL: scripts/pretrain/cifar/augmentations/symmetric.yaml, which blurs 32 px too
SIMCLR_CIFAR_VIEWS = dataclasses.replace(
    CIFAR_VIEWS,
    global_scale_min=0.08,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    blur=0.5,
    solarize=0.0,
)

# scripts/pretrain/imagenet-100/augmentations/symmetric.yaml
SIMCLR_IMAGENET100_VIEWS = dataclasses.replace(SIMCLR_CIFAR_VIEWS, global_size=224)

# LeJEPA, README "Data augmentation and views". The paper's text has 96 px for the local views: use that where patches
# are of 8 or 16 px, which do not divide 98. Flip, jitter and grayscale are as above.
LEJEPA_VIEWS = dataclasses.replace(
    IMAGENET100_VIEWS,
    num_local=6,
    local_size=98,
    global_scale_min=0.3,
    local_scale_min=0.05,
    local_scale_max=0.3,
    solarize=0.2,
)

# LEJEPA_VIEWS for images of 32 px, which neither paper has: local views of half the side; no blur, as in CIFAR_VIEWS
LEJEPA_SMALL_VIEWS = dataclasses.replace(LEJEPA_VIEWS, global_size=32, local_size=16, blur=0.0)

# LeJEPA, MINIMAL.md: all views global, SimCLR's crops and colours. RandomApply([RandomSolarize(128)], p=.2) solarizes
# with .1, since RandomSolarize's own probability is .5. Its blur has a kernel of 7 px; here that is 13 of 128.
LEJEPA_MINIMAL_VIEWS = dataclasses.replace(SIMCLR_CIFAR_VIEWS, num_global=4, global_size=128, solarize=0.1)

# "LeJEPA Implementation Guide", create_views: jitter always, no blur
LEJEPA_GUIDE_VIEWS = dataclasses.replace(
    LEJEPA_VIEWS,
    local_size=96,
    global_scale_min=0.4,
    local_scale_max=0.4,
    jitter=1.0,
    saturation=0.4,
    blur=0.0,
    solarize=0.0,
)

# Rectified LpJEPA, MINIMAL.md at e31c91c, section 5: RandomResizedCrop(32) with torchvision's scale, jitter always
RECTIFIED_GUIDE_VIEWS = dataclasses.replace(
    CIFAR_VIEWS, global_scale_min=0.08, jitter=1.0, saturation=0.4, grayscale=0.0, solarize=0.0
)
