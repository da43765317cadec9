"""Whole pictures: equal to squares where pictures are square, crops and centers as torchvision's, cache and refusals.

Run: python -m pytest tests/unit/data/test_pictures.py
"""

import dataclasses
from pathlib import Path

import psutil
import pytest
import scipy.stats
import torch
from folders_of_images import folder_config
from odd_images import oriented
from photographs import as_float, photos
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv
from view_forms import augmented, make_views, to_input

from jepa_train.base.errors import ConfigError
from jepa_train.base.seeds import generator
from jepa_train.config import DataConfig, TrainConfig, ViewsConfig
from jepa_train.config.augmentation_presets import CIFAR_VIEWS
from jepa_train.data import Images, base, device_transfer
from jepa_train.data.augment import Parameters, parameters
from jepa_train.data.pictures import LONGEST, RGB_NORM, LineRanges, Source, as_lines, crop_lines
from jepa_train.data.splits import identify, load_splits, read_images
from jepa_train.evaluation.transfer import transfer_data
from jepa_train.storage.paths import cache_dir

MIXED = [(32, 43), (32, 32), (51, 32), (32, 160), (33, 32)]  # heights and widths
BUSY = dataclasses.replace(CIFAR_VIEWS, blur=0.5, num_local=3, global_size=24, local_size=12, local_scale_min=0.05)
PLAIN = ViewsConfig(flip=0.5, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)  # crops and flips only


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    load_splits.cache_clear()


def pictures(images: list[torch.Tensor], longest: int = 0) -> Source:
    """Pictures (3, H, W) as a batch of a data set in which the longest has so many lines."""
    parts, lengths = zip(*(as_lines(image.numpy()) for image in images), strict=True)
    lines, ranges = torch.cat([torch.from_numpy(part) for part in parts]), LineRanges(torch.tensor(lengths))
    return Source(
        pixels=lines,
        first=ranges.first,
        norm=RGB_NORM,
        lines=crop_lines(lines.shape[-1], longest or ranges.longest),
        lengths=ranges.lengths,
    )


def mixed(sides: list[tuple[int, int]]) -> list[torch.Tensor]:
    return [photos(1, max(each))[0, :, : each[0], : each[1]] for each in sides]


def write_photos(root: Path, sides: list[tuple[int, int]]) -> Path:
    """Two classes, each with these pictures as PNG in train and in test."""
    for folder in ("train/ant", "train/bee", "test/ant", "test/bee"):
        (root / folder).mkdir(parents=True)
        for number, image in enumerate(mixed(sides)):
            tv.to_pil_image(image.roll(len(folder) + number, 0)).save(root / folder / f"{number}.png")
    return root


def views_of(images: Source, config: ViewsConfig = BUSY, step: int = 0) -> list[torch.Tensor]:
    return make_views(images, config, seed=1, step=step, batch=slice(0, len(images)), global_batch=len(images))


def everything(images: Images) -> Source:
    return images.batch(torch.arange(len(images)))[0]


def test_square_pictures_are_what_squares_are_bit_for_bit(tmp_path):
    root = write_photos(tmp_path / "photos", [(40, 40), (64, 64), (32, 32)])
    square, whole = (
        everything(load_splits(folder_config(root, image_size=32, fit=fit)).train) for fit in ("square", "whole")
    )
    assert whole.lengths is not None
    for ours, theirs in zip(views_of(whole), views_of(square), strict=True):
        assert torch.equal(ours, theirs)
    for size, fov in ((32, 1.0), (28, 0.875), (24, 0.6)):
        assert torch.equal(to_input(whole, size, fov=fov), to_input(square, size, fov=fov))


def test_evaluation_sees_torchvisions_resize_and_center_crop(tmp_path):
    root = write_photos(tmp_path / "photos", [(60, 80), (100, 75), (64, 64), (48, 130)])
    config = folder_config(root, image_size=32, fit="whole")
    files = sorted((root / "test").rglob("*.png"))
    got = to_input(everything(load_splits(config).test), 28, fov=0.875)
    for file, ours in zip(files, got, strict=True):
        resized = tv.resize(Image.open(file), 32, antialias=True)
        expected = tv.normalize(as_float(tv.pil_to_tensor(tv.center_crop(resized, 28))), [0.5] * 3, [0.25] * 3)
        torch.testing.assert_close(ours, expected, rtol=0, atol=2 / 255 * 4 + 1e-6)  # 2 levels of 255


def test_crops_of_whole_pictures_equal_torchvisions_per_picture():
    images = mixed(MIXED)
    batch = pictures(images)
    shapes = batch.shapes
    sides = [side.repeat_interleave(4) for side in (shapes.heights, shapes.widths)]
    draws = torch.rand(4 * len(images), 32, generator=generator("draws"), dtype=torch.float64)
    values = parameters(draws, PLAIN, scale=(0.1, 1.0), sides=sides)
    got = augmented(batch, values, size=20).transpose(0, 1).flatten(0, 1)
    assert values.flip.any()
    for n, ours in enumerate(got):
        box = [int(side[n]) for side in (values.top, values.left, values.height, values.width)]
        x = tv.resized_crop(as_float(images[n // 4]), *box, size=[20, 20], antialias=True)
        x = tv.horizontal_flip(x) if values.flip[n] else x
        torch.testing.assert_close(ours, tv.normalize(x, [0.5] * 3, [0.25] * 3), rtol=0, atol=1e-4)


def drawn(height: int, width: int, scale: tuple[float, float], num: int = 4000) -> Parameters:
    draws = torch.rand(num, 32, generator=generator("draws"), dtype=torch.float64)
    sides = [torch.full((num,), float(side)).double() for side in (height, width)]
    return parameters(draws, PLAIN, scale=scale, sides=sides)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (90, 400), (256, 256)])
def test_crops_are_distributed_as_torchvisions_and_reach_the_borders(height, width, scale):
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(1000)]).T
    values = drawn(height, width, scale)
    ours = (values.top, values.left, values.height, values.width)
    for name, mine, other in zip(("top", "left", "height", "width"), ours, theirs, strict=True):
        assert scipy.stats.ks_2samp(mine, other).pvalue > 1e-3, name
    if scale[0] < 0.5:
        assert (values.top.min(), (values.top + values.height).max()) == (0, height)
        assert (values.left.min(), (values.left + values.width).max()) == (0, width)
    short = min(height, width)
    batch = pictures([torch.zeros(3, height, width, dtype=torch.uint8)])
    assert max(values.height.max(), values.width.max()) <= batch.lines <= short * 4 / 3 + 2


def test_a_view_is_a_function_of_seed_step_and_picture_on_any_number_of_ranks():
    images = mixed(MIXED + MIXED[:1])
    whole = views_of(pictures(images))
    assert not torch.equal(views_of(pictures(images), step=1)[0], whole[0])
    longest = max(max(each) for each in MIXED)  # of the data set, also where the longest is on another rank
    parts = [
        make_views(pictures(images[batch], longest), BUSY, seed=1, batch=batch, global_batch=6)
        for batch in (slice(0, 1), slice(1, 3), slice(3, 6))
    ]
    for resolution, expected in enumerate(whole):
        assert torch.equal(torch.cat([part[resolution] for part in parts], dim=1), expected)


def test_lines_that_are_sent_to_a_device_give_the_same_batch(monkeypatch):
    """The meta device in the place of a GPU without room for the lines; what would be sent stays here."""
    batch = pictures(mixed(MIXED))
    images = Images(
        pixels=batch.pixels, rows=torch.tensor([4, 2, 0]), labels=torch.arange(3), ranges=LineRanges(batch.lengths)
    )
    monkeypatch.setattr(Images, "_sent", lambda self, index: self.pixels[index])
    monkeypatch.setattr(base, "to_device", lambda tensor, _device: tensor)
    positions = torch.tensor([2, 0, 2, 1])
    here, there = (
        each.batch(positions)[0] for each in (images, dataclasses.replace(images, labels=images.labels.to("meta")))
    )
    assert here.pixels is batch.pixels, "no copy"
    assert len(there.pixels) == 43 + 33 + 43 + 51
    for ours, theirs in zip(views_of(there), views_of(here), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("share", [0.25, 0.0])  # on the GPU, and sent from the host
def test_whole_pictures_on_a_gpu_are_those_of_the_cpu_and_wait_for_nothing(share, monkeypatch):
    monkeypatch.setattr(device_transfer, "_SHARE", share)
    monkeypatch.setattr(device_transfer, "_copied", {})
    batch = pictures(mixed(MIXED))
    ranges = LineRanges(batch.lengths)
    images = Images(pixels=batch.pixels, rows=torch.arange(5), labels=torch.arange(5), ranges=ranges)
    there, positions = images.on(torch.device("cuda")), torch.tensor([4, 0, 3])

    def made(source: Images) -> list[torch.Tensor]:
        some = source.batch(positions)[0]
        return [*views_of(some, dataclasses.replace(BUSY, solarize=0.0)), to_input(some, 16, fov=0.8)]

    made(there)  # what is made once is there now
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = made(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for result, expected in zip(results, made(images), strict=True):
        torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-4)


def test_each_fit_and_size_has_its_own_cache_and_one_identity(tmp_path):
    root = write_photos(tmp_path / "photos", [(40, 60), (50, 40), (40, 40)])
    config = folder_config(root, image_size=16, fit="whole", local_image_size=24)
    identified = read_images(config, keep=True)[0]
    assert (
        dataclasses.replace(identified, fit="square", local_image_size=0)
        == read_images(folder_config(root, image_size=16), keep=True)[0]
    )
    splits = load_splits(identified)
    load_splits(folder_config(root, image_size=16))
    kinds = sorted(file.name.partition("-")[2] for file in cache_dir().glob("*.npy"))
    assert kinds == ["16-3.npy", "16-whole-3.npy", "24-whole-3.npy"]
    assert splits.train.pixels.shape == (4 * (24 + 20 + 16), 3, 16)
    assert splits.train.ranges.lengths.tolist() == [-24, 20, 16] * 4
    assert splits.train.local.pixels.shape == (4 * (36 + 30 + 24), 3, 24)
    assert splits.val.local.rows.tolist() == splits.val.rows.tolist()


def test_odd_pictures_are_upright_bounded_and_skipped(tmp_path):
    root = write_photos(tmp_path / "photos", [(16, 24), (24, 16)])
    tv.to_pil_image(photos(1, 24)[0, :, :16]).save(root / "train" / "ant" / "turned.png", exif=oriented(6))
    tv.to_pil_image(photos(1, 200)[0, :, :4]).save(root / "train" / "ant" / "panorama.png")
    (root / "train" / "ant" / "z.png").write_bytes(b"no image")
    images = load_splits(folder_config(root, image_size=8, fit="whole", on_corrupt="skip"))
    assert images.skipped == 1
    assert images.train.ranges.lengths[:5].tolist() == [-12, 12, -8 * LONGEST, 12, 8]  # 0, 1, panorama, turned, z
    assert 4 not in [*images.train.rows.tolist(), *images.val.rows.tolist()]


def test_the_identity_of_transfer_sets_leaves_whole_pictures_out_where_they_cannot_be():
    data = DataConfig(
        name="image_folder", path="/data/x", image_size=16, fit="whole", local_image_size=32, eval_fov=0.9
    )
    found = {name: transfer_data(name, "", data) for name in ("cifar10", "dtd")}
    assert {name: (each.fit, each.local_image_size, each.eval_fov) for name, each in found.items()} == {
        "cifar10": ("square", 0, 0.9),
        "dtd": ("whole", 0, 0.9),
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "digits", "fit": "whole"},
            "data.fit must be square for digits, which is no folder of images, got whole; set data.fit=square",
        ),
        (
            {"name": "digits", "local_image_size": 64},
            "data.local_image_size must be 0 for digits, which is no folder of images, got 64; "
            "set data.local_image_size=0",
        ),
        (
            {"local_image_size": 400_000},
            "data.local_image_size must leave the images in memory, got 400000: 8 images take about 3840 GB of 64; "
            "lower it, or 0 for local views from those of data.image_size",
        ),
        (
            {"local_image_size": 400_000, "fit": "whole"},
            "data.local_image_size must leave the images in memory, got 400000: 8 images take about 5120 GB of 64; "
            "lower it, or 0 for local views from those of data.image_size",
        ),
    ],
)
def test_images_that_cannot_be_are_refused_in_one_line(fields, message, tmp_path, monkeypatch):
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(total=64 * 10**9))
    config = folder_config(write_photos(tmp_path / "photos", [(16, 24), (24, 16)]))
    for check in (identify, lambda config: read_images(config, keep=True)):
        with pytest.raises(ConfigError) as caught:
            check(dataclasses.replace(config, **fields))
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"fit": "hole"}, r"^fit must be one of square, whole, got 'hole'; did you mean 'whole'\?$"),
        ({"local_image_size": 12}, r"^local_image_size must exceed image_size \(12\), got 12; 0 means none$"),
        (
            {"eval_fov": 0.0},
            r"^eval_fov must lie in \(0, 1\] and .* 4 of the 12 px of image_size, got 0\.0; try 0\.875$",
        ),
        (
            {"eval_fov": 0.2},
            r"^eval_fov must lie in \(0, 1\] and leave at least 4 of the 12 px of image_size, got 0\.2",
        ),
        ({"eval_fov": 1.5}, r"^eval_fov must lie in \(0, 1\]"),
    ],
)
def test_wrong_fields_are_refused(fields, rule):
    with pytest.raises(ValueError, match=rule):
        DataConfig(**fields)


def test_images_for_local_views_need_local_views():
    with pytest.raises(ValueError, match=r"^data\.local_image_size must be 0 without local views, got 64; drop it$"):
        TrainConfig(data=DataConfig(local_image_size=64))
