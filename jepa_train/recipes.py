"""Named augmentation recipes: values to put into TrainConfig(views=...), one per kind of images."""

from jepa_train.config import ViewsConfig

# grey strokes: a flip makes another character, colour has no effect, and blur or solarising hide what little there is
DIGITS_VIEWS = ViewsConfig(
    global_size=12,
    global_scale_min=0.6,
    flip=0.0,
    brightness=0.4,
    contrast=0.4,
    saturation=0.0,
    hue=0.0,
    grayscale=0.0,
    blur=0.0,
    solarize=0.0,
)

# Rectified LpJEPA's CIFAR configs (symmetric, no blur), also used for LeJEPA with 2 views
CIFAR_VIEWS = ViewsConfig(
    global_size=32,
    global_scale_min=0.2,
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
