"""Views: every operation against torchvision's functional form per image, distributions against the recipe."""

import dataclasses
import math

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from jepa_train import pixels
from jepa_train.config import ViewsConfig
from jepa_train.randomness import generator
from jepa_train.recipes import CIFAR_VIEWS, DIGITS_VIEWS
from jepa_train.views import augmented, make_views, parameters, to_input

PLAIN = ViewsConfig(flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)  # crops only
COLOUR = dataclasses.replace(CIFAR_VIEWS, blur=0.5, solarize=0.3)  # every operation occurs
BUSY = dataclasses.replace(COLOUR, num_local=3, global_size=24, local_size=12)


def photos(num: int, size: int = 32) -> torch.Tensor:
    """Smooth random colour images with black, white and grey areas, (num, 3, size, size) uint8."""
    coarse = torch.rand(num, 3, 6, 6, generator=generator(0, "photos")) * 2.2 - 0.6
    coarse[:, :, :2, :2] = coarse[:, :1, :2, :2]  # grey: the hue is undefined there
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return smooth.clamp(0, 1).mul(255).round().to(torch.uint8)


def as_float(images: torch.Tensor) -> torch.Tensor:
    return tv.to_dtype(images, torch.float32, scale=True)


def views_of(images: torch.Tensor, config: ViewsConfig, *, seed: int = 0, step: int = 0) -> list[torch.Tensor]:
    return make_views(images, config, seed=seed, step=step, batch=slice(0, len(images)), global_batch=len(images))


def drawn(config: ViewsConfig, *, num: int = 20_000, scale: tuple[float, float] = (0.3, 1.0), size: int = 224):
    draws = torch.rand(num, 32, generator=generator("draws"), dtype=torch.float64)
    return parameters(draws, config, scale=scale, size=size)


@pytest.mark.parametrize(
    ("operation", "reference", "low", "high"),
    [
        (pixels.brightness, tv.adjust_brightness, 0.2, 1.8),
        (pixels.contrast, tv.adjust_contrast, 0.0, 2.0),
        (pixels.saturation, tv.adjust_saturation, 0.0, 2.0),
        (pixels.hue, tv.adjust_hue, -0.5, 0.5),
        (pixels.solarize, tv.solarize, 0.1, 0.9),
        (pixels.blur, lambda image, sigma: tv.gaussian_blur(image, [3, 3], [sigma, sigma]), 0.1, 2.0),
    ],
)
def test_operation_equals_torchvision_per_image(operation, reference, low, high):
    images = photos(24)
    values = torch.linspace(low, high, len(images))
    got = pixels.packed(operation(pixels.unpacked(images), values), mean=0, std=1)
    for image, value, result in zip(as_float(images), values.tolist(), got, strict=True):
        torch.testing.assert_close(result, reference(image, value), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("size", "kernel"), [(96, 9), (224, 23)])
def test_blur_kernel_is_a_tenth_of_the_image(size, kernel):
    images = photos(2, size)
    got = pixels.packed(pixels.blur(pixels.unpacked(images), torch.tensor([0.4, 1.9])), mean=0, std=1)
    for image, sigma, result in zip(as_float(images), (0.4, 1.9), got, strict=True):
        torch.testing.assert_close(result, tv.gaussian_blur(image, [kernel, kernel], [sigma]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [12, 32, 40])  # shrinks, mixed, enlarges
def test_crop_and_flip_equal_torchvision_per_image(size):
    images = photos(40)
    config = dataclasses.replace(PLAIN, flip=0.5)
    values = drawn(config, num=40, scale=(0.05, 1.0), size=32)
    got = augmented(pixels.unpacked(images), values, size=size)[0] / 4 + 0.5
    for n, (image, result) in enumerate(zip(as_float(images), got, strict=True)):
        box = [int(side[n]) for side in (values.top, values.left, values.height, values.width)]
        expected = tv.resized_crop(image, *box, size=[size, size], antialias=True)
        expected = tv.horizontal_flip(expected) if values.flip[n] else expected
        torch.testing.assert_close(result, expected, rtol=0, atol=3e-6)


def test_whole_recipe_equals_torchvision_in_the_documented_order():
    images = photos(64)
    values = drawn(COLOUR, num=64, size=32)
    got = augmented(pixels.unpacked(images), values, size=32)[0]
    for n, image in enumerate(as_float(images)):
        box = [int(side[n]) for side in (values.top, values.left, values.height, values.width)]
        x = tv.resized_crop(image, *box, size=[32, 32], antialias=True)
        x = tv.horizontal_flip(x) if values.flip[n] else x
        x = tv.adjust_brightness(x, values.brightness[n].item())
        x = tv.adjust_contrast(x, values.contrast[n].item())
        x = tv.adjust_saturation(x, values.saturation[n].item())
        x = tv.adjust_hue(x, values.hue[n].item())
        x = tv.rgb_to_grayscale(x, num_output_channels=3) if values.grayscale[n] == 0 else x
        x = tv.gaussian_blur(x, [3, 3], [values.blur[n].item()] * 2) if values.blur[n] > 0 else x
        x = torch.where(x >= 0.5, 1 - x, x) if values.solarize[n] < 1 else x
        torch.testing.assert_close(got[n], tv.normalize(x, [0.5] * 3, [0.25] * 3), rtol=0, atol=3e-5)


def test_crops_follow_the_recipe():
    values = drawn(PLAIN, scale=(0.3, 0.8))
    area = values.height * values.width / 224**2
    assert 0.295 < area.min() < 0.31
    assert 0.79 < area.max() < 0.805
    assert area.mean().item() == pytest.approx(0.55, abs=0.005)  # uniform; few attempts are refused at this scale
    log_aspect = (values.width / values.height).log()
    assert log_aspect.abs().max().item() == pytest.approx(math.log(4 / 3), abs=0.02)
    assert log_aspect.mean().item() == pytest.approx(0, abs=0.005)
    assert log_aspect.var().item() == pytest.approx(math.log(16 / 9) ** 2 / 12, rel=0.03)  # of a uniform law
    for start, length in ((values.top, values.height), (values.left, values.width)):
        assert start.min() == 0
        assert (start + length).max() == 224
        assert (start / (224 - length).clamp_min(1)).mean().item() == pytest.approx(0.5, abs=0.01)


def test_crop_that_never_fits_is_the_whole_image():
    values = drawn(PLAIN, scale=(1.0, 1.0), num=2000)
    whole = (values.height == 224) & (values.width == 224)
    assert whole.all()  # area 1 fits only with aspect 1


def test_probabilities_and_strengths_follow_the_recipe():
    colours = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
    config = ViewsConfig(flip=0.5, jitter=0.8, grayscale=0.2, blur=0.3, solarize=0.1, **colours)
    values = drawn(config)
    shares = {
        "flip": values.flip,
        "jitter": values.brightness != 1,
        "grayscale": values.grayscale == 0,
        "blur": values.blur > 0,
        "solarize": values.solarize < 1,
    }
    for name, chosen in shares.items():
        assert chosen.float().mean().item() == pytest.approx(getattr(config, name), abs=0.012), name
    jittered = values.brightness != 1
    assert torch.equal(jittered, values.hue != 0)  # one decision for the four operations of the jitter
    for value, centre, strength in ((values.brightness, 1, 0.4), (values.contrast, 1, 0.4), (values.hue, 0, 0.1)):
        offset = (value[jittered] - centre) / strength
        assert offset.abs().max().item() == pytest.approx(1, abs=0.001)
        assert offset.var().item() == pytest.approx(1 / 3, rel=0.03)
    sigma = values.blur[values.blur > 0]
    assert sigma.min().item() == pytest.approx(0.1, abs=0.01)
    assert sigma.mean().item() == pytest.approx(1.05, abs=0.03)
    draws = torch.stack([values.brightness, values.contrast, values.saturation, values.hue])[:, jittered]
    assert (torch.corrcoef(draws) - torch.eye(4)).abs().max() < 0.04  # independent draws


def test_turning_one_operation_off_leaves_the_others_alone():
    images = photos(16)
    still = dataclasses.replace(ViewsConfig(), solarize=0.0)
    a, b = views_of(images, ViewsConfig(solarize=0.3))[0], views_of(images, still)[0]
    same = (a == b).flatten(2).all(2)
    assert 0.5 < same.float().mean() < 0.9


@pytest.mark.parametrize("shares", [(8, 8), (4, 4, 4, 4), (1,) * 16, (5, 11)])
def test_ranks_together_make_the_views_of_one_process(shares):
    images = photos(16)
    whole = views_of(images, BUSY, seed=3, step=7)
    starts = [sum(shares[:rank]) for rank in range(len(shares))]
    parts = [
        make_views(images[s : s + n], BUSY, seed=3, step=7, batch=slice(s, s + n), global_batch=16)
        for s, n in zip(starts, shares, strict=True)
    ]
    for resolution, expected in enumerate(whole):
        assert torch.equal(torch.cat([part[resolution] for part in parts], dim=1), expected)


def test_views_depend_on_seed_step_view_and_position_only():
    image = photos(1).expand(4, 3, 32, 32)
    views = views_of(image, BUSY, seed=1, step=1)[0]
    torch.manual_seed(123)  # the global generator plays no part
    assert torch.equal(views_of(image, BUSY, seed=1, step=1)[0], views)
    for other in (views_of(image, BUSY, seed=2, step=1)[0], views_of(image, BUSY, seed=1, step=2)[0]):
        assert not (views == other).flatten(2).all(2).any()
    flat = views.flatten(0, 1).flatten(1)
    assert len(flat.unique(dim=0)) == 8  # 2 views x 4 positions, all different


def test_resolutions_have_their_sizes_and_scales():
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(64, 3, 32, 32)  # grey level = column
    config = dataclasses.replace(BUSY, flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)
    big, small = views_of(ramp, config)
    assert big.shape == (2, 64, 3, 24, 24)
    assert small.shape == (3, 64, 3, 12, 12)
    width = [(part[..., -1] - part[..., 0]).mean().item() * 0.25 * 255 / 8 for part in (big, small)]  # in columns
    assert width[0] > 1.6 * width[1]  # areas .3 - 1 and .05 - .3


def test_identity_parameters_give_the_image_back():
    images = photos(8)
    config = dataclasses.replace(PLAIN, global_size=32, global_scale_min=1.0)
    for view in views_of(images, config)[0]:
        torch.testing.assert_close(view, (as_float(images) - 0.5) / 0.25)
        torch.testing.assert_close(view, to_input(images, 32))


def test_to_input_resizes_as_torchvision():
    images = photos(8)
    for size in (16, 48):
        expected = tv.normalize(tv.resize(as_float(images), [size, size], antialias=True), [0.5] * 3, [0.25] * 3)
        torch.testing.assert_close(to_input(images, size), expected)
    assert images.max() == 255  # the stored images are not written to


def test_digits_are_never_flipped_nor_coloured():
    ramp = torch.arange(16, dtype=torch.uint8).mul(16).expand(200, 3, 16, 16)  # brighter to the right
    views = views_of(ramp, DIGITS_VIEWS)[0]
    assert (views[..., -1] > views[..., 0]).all()
    assert (views[:, :, 0] == views[:, :, 1]).all()
    assert (views_of(ramp, dataclasses.replace(DIGITS_VIEWS, flip=0.5))[0][..., -1] < -1).any()


def test_cifar_recipe_is_the_papers():
    published = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "jitter": 0.8, "grayscale": 0.2}
    published |= {"solarize": 0.1, "flip": 0.5, "blur": 0.0, "global_scale_min": 0.2, "global_scale_max": 1.0}
    published |= {"num_global": 2, "num_local": 0}
    assert {name: getattr(CIFAR_VIEWS, name) for name in published} == published


def test_autocast_and_gradients_stay_out():
    images = photos(4)
    expected = views_of(images, BUSY)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(views_of(images, BUSY)[0], expected)
