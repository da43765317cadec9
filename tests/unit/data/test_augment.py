"""Views: crops and whole recipes against torchvision per image, distributions against the recipe.

Run: python -m pytest tests/unit/data/test_augment.py
"""

import dataclasses

import pytest
import scipy.stats
import torch
from photographs import as_float, blurred, photos
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv
from view_forms import augmented, make_views, to_input

from jepa_train.base.seeds import generator
from jepa_train.config import ViewsConfig
from jepa_train.config.augmentation_presets import CIFAR_VIEWS, DIGITS_VIEWS
from jepa_train.data import augment
from jepa_train.data.augment import parameters

PLAIN = ViewsConfig(flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)  # crops only
COLOUR = dataclasses.replace(CIFAR_VIEWS, blur=0.5, solarize=0.3)  # every operation occurs
BUSY = dataclasses.replace(COLOUR, num_local=3, global_size=24, local_size=12)


def views_of(images: torch.Tensor, config: ViewsConfig, *, seed: int = 0, step: int = 0) -> list[torch.Tensor]:
    return make_views(images, config, seed=seed, step=step, batch=slice(0, len(images)), global_batch=len(images))


def drawn(config: ViewsConfig, *, num: int = 20_000, scale: tuple[float, float] = (0.3, 1.0), size: int = 224):
    draws = torch.rand(num, 32, generator=generator("draws"), dtype=torch.float64)
    return parameters(draws, config, scale=scale, sides=[torch.full((num,), float(size)).double()] * 2)


@pytest.mark.parametrize(
    ("config", "stored", "size", "num"),
    [
        (dataclasses.replace(PLAIN, flip=0.5), 32, 12, 16),
        (dataclasses.replace(PLAIN, flip=0.5), 96, 32, 4),
        (COLOUR, 32, 40, 16),  # some crops shrink, some are enlarged
        (COLOUR, 96, 96, 3),
    ],
)
def test_views_equal_torchvision_per_image_in_the_documented_order(config, stored, size, num):
    images = photos(num, stored)
    values = drawn(config, num=num, scale=(0.05, 1.0), size=stored)
    got = augmented(images, values, size=size)[0]
    for n, image in enumerate(as_float(images)):
        box = [int(side[n]) for side in (values.top, values.left, values.height, values.width)]
        x = tv.resized_crop(image, *box, size=[size, size], antialias=True)
        x = tv.horizontal_flip(x) if values.flip[n] else x
        x = tv.adjust_brightness(x, values.brightness[n].item())
        x = tv.adjust_contrast(x, values.contrast[n].item())
        x = tv.adjust_saturation(x, values.saturation[n].item())
        x = tv.adjust_hue(x, values.hue[n].item())
        x = tv.rgb_to_grayscale(x, num_output_channels=3) if values.grayscale[n] == 0 else x
        x = blurred(x, values.blur[n].item()) if values.blur[n] > 0 else x
        edge = (x - 0.5).abs() < 1e-5  # on which side of the threshold such a pixel lies is a matter of rounding
        x = torch.where(x >= 0.5, 1 - x, x) if values.solarize[n] < 1 else x
        x = tv.normalize(x, [0.5] * 3, [0.25] * 3)
        torch.testing.assert_close(torch.where(edge, x, got[n]), x, rtol=0, atol=2e-4)


def uniform(sample: torch.Tensor, low: float, high: float) -> bool:
    """True if the Kolmogorov-Smirnov test accepts the sample as uniform on [low, high]."""
    assert low <= sample.min()
    assert sample.max() <= high
    return scipy.stats.kstest(sample, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-3


def happens(chosen: torch.Tensor, probability: float) -> bool:
    return scipy.stats.binomtest(int(chosen.sum()), len(chosen), probability).pvalue > 1e-3


@pytest.mark.parametrize(("size", "scale"), [(32, (0.2, 1.0)), (224, (0.9, 1.0)), (224, (1.0, 1.0))])
def test_crops_are_distributed_as_torchvisions(size, scale):
    """Crops that do not fit are drawn again, which changes the distribution."""
    torch.manual_seed(0)
    image = torch.empty(3, size, size)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(1000)]).T
    values = drawn(PLAIN, scale=scale, size=size)
    ours = (values.top, values.left, values.height, values.width)
    for name, mine, other in zip(("top", "left", "height", "width"), ours, theirs, strict=True):
        assert scipy.stats.ks_2samp(mine, other).pvalue > 1e-3, name
    area = scipy.stats.ks_2samp(values.height * values.width, theirs[2] * theirs[3])
    assert area.pvalue > 1e-3


@pytest.mark.parametrize("config", [DIGITS_VIEWS, dataclasses.replace(COLOUR, jitter=0.3, hue=0.5)])
def test_probabilities_and_strengths_follow_the_recipe(config):
    values = drawn(config)
    jittered = values.brightness != 1
    assert happens(values.flip, config.flip)
    assert happens(jittered, config.jitter)
    assert happens(values.grayscale == 0, config.grayscale)
    assert set(values.grayscale.tolist()) <= {0.0, 1.0}
    assert happens(values.blur > 0, config.blur)
    assert happens(values.solarize < 1, config.solarize)
    factors = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0}
    for name, centre in factors.items():
        value, strength = getattr(values, name), getattr(config, name)
        assert (value[~jittered] == centre).all(), name  # one decision for the four operations of the jitter
        if strength:
            assert uniform(value[jittered], centre - strength, centre + strength), name
        else:
            assert (value == centre).all(), name
    if config.blur:
        assert uniform(values.blur[values.blur > 0], 0.1, 2.0)
    if config.solarize:
        assert set(values.solarize[values.solarize < 1].tolist()) == {0.5}
    names = [name for name in factors if getattr(config, name)]
    draws = torch.stack([getattr(values, name)[jittered] for name in names])
    assert (torch.corrcoef(draws) - torch.eye(len(names))).abs().max() < 0.05  # independent draws
    chosen = torch.stack([values.flip, jittered, values.grayscale == 0, values.blur > 0, values.solarize < 1]).double()
    chosen = chosen[chosen.std(1) > 0]
    assert (torch.corrcoef(chosen) - torch.eye(len(chosen))).abs().max() < 0.05


def test_turning_one_operation_off_leaves_the_others_alone():
    images = photos(16)
    still = dataclasses.replace(ViewsConfig(), solarize=0.0)
    a, b = views_of(images, ViewsConfig(solarize=0.3))[0], views_of(images, still)[0]
    same = (a == b).flatten(2).all(2)
    assert 0.5 < same.float().mean() < 0.9


def test_ranks_together_make_the_views_of_one_process():
    images = photos(6)
    whole = views_of(images, BUSY, seed=3, step=7)
    parts = [
        make_views(images[batch], BUSY, seed=3, step=7, batch=batch, global_batch=6)
        for batch in (slice(0, 1), slice(1, 3), slice(3, 6))
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


def test_global_and_local_views_show_shares_of_the_image_in_their_ranges():
    """Red is the column and green the row, so the range of a view's colours is the size of its crop."""
    images = photos(8)
    images[:, 0] = torch.arange(32) * 8
    images[:, 1] = torch.arange(32)[:, None] * 8
    resolutions = views_of(images, dataclasses.replace(PLAIN, flip=0.5, num_local=6, local_size=16), seed=2)
    assert [part.shape[:3] for part in resolutions] == [(2, 8, 3), (6, 8, 3)]
    for part, (low, high) in zip(resolutions, ((PLAIN.global_scale_min, 1.0), (0.05, 0.3)), strict=True):
        sides = (part.amax((-2, -1)) - part.amin((-2, -1)))[..., :2] / 4 * 256 / 8 + 1  # pixels, up to one
        area = sides.prod(-1) / 32**2
        assert (sides <= 33).all()
        assert low * 0.7 <= area.min() < area.max() <= high * 1.3
        assert len(area.unique()) > 10


def test_parts_change_no_view(monkeypatch):
    images = photos(5)
    values = drawn(COLOUR, num=15, size=32)
    whole = augmented(images, values, size=24)
    monkeypatch.setitem(augment._AT_ONCE, "cpu", 2 * 3 * 3 * 32 * 32 // torch.get_num_threads())  # 2 + 2 + 1 images
    torch.testing.assert_close(augmented(images, values, size=24), whole, rtol=0, atol=1e-5)


def test_views_read_nothing_back_from_the_device():
    """The meta device has shapes and no values: to ask for one fails there, where a GPU would be waited for."""
    images = torch.empty(16, 3, 32, 32, dtype=torch.uint8, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        images.max().item()
    assert augmented(images, drawn(COLOUR, num=48, size=32), size=24, form="static").device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("config", [BUSY, CIFAR_VIEWS])  # in torch and by the Triton kernel
def test_views_on_a_gpu_are_those_of_the_cpu_and_wait_for_nothing(config):
    images = photos(16)
    there = images.cuda()
    views_of(there, config)  # what is made once is there now
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = views_of(there, config)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for result, expected in zip(results, views_of(images, config), strict=True):
        edge = (expected * 0.25).abs() < 1e-5  # solarised or not: a matter of rounding
        torch.testing.assert_close(torch.where(edge, expected, result.cpu()), expected, rtol=0, atol=1e-4)


def test_to_input_resizes_as_torchvision():
    images = photos(8)
    for size in (16, 48):
        expected = tv.normalize(tv.resize(as_float(images), [size, size], antialias=True), [0.5] * 3, [0.25] * 3)
        torch.testing.assert_close(to_input(images, size), expected)
    assert images.max() == 255  # the stored images are not written to
    torch.testing.assert_close(to_input(images, 32), (as_float(images) - 0.5) / 0.25)


def test_views_are_float32_under_autocast():
    images = photos(2)
    expected = views_of(images, BUSY)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(views_of(images, BUSY)[0], expected)
