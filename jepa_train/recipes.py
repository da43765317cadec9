"""Named augmentation recipes: values to put into TrainConfig(views=...), one per kind of images."""

from jepa_train.config import ViewsConfig

DIGITS_VIEWS = ViewsConfig()

# Rectified LpJEPA's CIFAR configs (symmetric, no blur), also used for LeJEPA with 2 views
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
