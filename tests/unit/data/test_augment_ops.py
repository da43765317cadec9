"""The batched operations, each against torchvision's functional form per image on the same parameter.

Run: python -m pytest tests/unit/data/test_augment_ops.py
"""

import pytest
import torch
from photographs import as_float, blurred, photos
from torchvision.transforms.v2 import functional as tv

from jepa_train.data import augment_ops


def planes(images: torch.Tensor) -> torch.Tensor:
    return as_float(images).movedim(1, 0).contiguous()


@pytest.mark.parametrize(
    ("operation", "reference", "low", "high"),
    [
        (augment_ops.brightness, tv.adjust_brightness, 0.2, 1.8),
        (augment_ops.contrast, tv.adjust_contrast, 0.0, 2.0),
        (augment_ops.saturation, tv.adjust_saturation, 0.0, 2.0),
        (augment_ops.hue, tv.adjust_hue, -0.5, 0.5),
        (augment_ops.saturation, lambda image, _: tv.rgb_to_grayscale(image, num_output_channels=3), 0.0, 0.0),
        (augment_ops.solarize, tv.solarize, 0.1, 0.9),
        (augment_ops.blur, blurred, 0.1, 2.0),
    ],
)
@pytest.mark.parametrize("size", [32, 96])
def test_operation_equals_torchvision_per_image(operation, reference, low, high, size):
    images = photos(8 if size == 32 else 2, size)
    values = torch.linspace(low, high, len(images))
    got = operation(planes(images), values).movedim(0, 1)
    for image, value, result in zip(as_float(images), values.tolist(), got, strict=True):
        torch.testing.assert_close(result, reference(image, value), rtol=0, atol=3e-6)
