"""The forms in which a device makes views: equal to the one on a CPU, and the same operations in every step on a GPU.

Run: python -m pytest tests/unit/data/test_view_forms.py
"""

import dataclasses
import math

import pytest
import torch
from photographs import photos
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from view_forms import augmented, source_of

from jepa_train.base import kernel_launch
from jepa_train.base.seeds import generator
from jepa_train.config import ViewsConfig
from jepa_train.config.augmentation_presets import CIFAR_VIEWS, LEJEPA_SMALL_VIEWS
from jepa_train.config.presets import PRESETS
from jepa_train.data import Images
from jepa_train.data.augment import Parameters, apply_views, make_views, parameters, view_fields
from jepa_train.data.pictures import RGB_NORM, LineRanges, Shapes, Source, crop_lines

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COLOR = dataclasses.replace(CIFAR_VIEWS, blur=0.5, solarize=0.3)  # every operation occurs
BUSY = dataclasses.replace(COLOR, num_local=2, global_size=24, local_size=12, local_scale_min=0.05)
LENGTHS = torch.tensor([43, -32, 32, -70, 33])  # of pictures whose shorter side is 32 px


def lines(side: int = 32) -> Tensor:
    return torch.randint(0, 256, (int(LENGTHS.abs().sum()), 3, side), generator=generator("lines"), dtype=torch.uint8)


def pictures(pixels: Tensor, lengths: Tensor) -> Source:
    ranges = LineRanges(lengths)
    count = crop_lines(pixels.shape[-1], ranges.longest)
    return Source(pixels=pixels, first=ranges.first, norm=RGB_NORM, lines=count, lengths=lengths)


def drawn(shapes: Shapes, num_views: int, config: ViewsConfig = COLOR) -> Parameters:
    sides = [side.repeat_interleave(num_views) for side in (shapes.heights, shapes.widths)]
    draws = torch.rand(len(sides[0]), 32, generator=generator("draws"), dtype=torch.float64)
    return parameters(draws, config, scale=(0.1, 1.0), sides=sides)


def on_meta(source: Source) -> list[Source]:
    tensors = {name: getattr(source, name).to("meta") for name in ("pixels", "first", "norm")}
    return [dataclasses.replace(source, **tensors)] * 2


def fields_of(shapes: list[Shapes], config: ViewsConfig, step: int) -> list[Tensor]:
    num = len(shapes[0].heights)
    return view_fields(shapes, config, seed=0, step=step, batch=slice(0, num), global_batch=num)


@pytest.mark.parametrize(
    "images", [photos(6), photos(6, 40), pictures(lines(), LENGTHS)], ids=["32 px", "40 px", "whole"]
)
@pytest.mark.parametrize("size", [24, 40])
def test_views_are_the_same_where_every_operation_is_computed_for_all(images, size):
    values = drawn(source_of(images).shapes, 4)
    assert (values.blur > 0).any()
    assert (values.hue == 0).any()
    expected = augmented(images, values, size=size)
    assert torch.equal(augmented(images, values, size=size, form="static"), expected)


def few(size: int) -> Parameters:
    """Of three views: with all operations, with grayscale, with none but the crop."""
    return drawn(Shapes.of(3, size), 1, dataclasses.replace(CIFAR_VIEWS, jitter=1.0))._replace(
        flip=torch.tensor([True, False, True]),
        brightness=torch.tensor([1.3, 0.8, 1.0]),
        contrast=torch.tensor([0.7, 1.2, 1.0]),
        saturation=torch.tensor([1.1, 1.0, 1.0]),
        hue=torch.tensor([-0.1, 0.05, 0.0]),
        grayscale=torch.tensor([1.0, 0.0, 1.0]),
        solarize=torch.tensor([0.5, math.inf, math.inf]),
    )


@pytest.mark.parametrize(("stored", "size"), [(32, 32), (28, 12), (12, 12), (20, 33), (64, 28), (50, 64)])
def test_the_kernel_makes_the_same_views(stored, size):
    pytest.importorskip("triton")
    images, values = photos(3, stored), few(stored)
    before = augmented(images, values._replace(solarize=torch.full((3,), math.inf)), size=size)
    edge = (before * 0.25).abs() < 1e-5  # on which side of the threshold such a pixel lies is a matter of rounding
    assert edge[:, 0].float().mean() < 0.01
    expected = augmented(images, values, size=size)
    made = augmented(images.to(DEVICE), values, size=size, form="fused").cpu()
    assert not torch.equal(expected[:, 0], before[:, 0])  # solarized
    torch.testing.assert_close(torch.where(edge, expected, made), expected, rtol=0, atol=1e-5)


def test_the_kernels_crops_reach_every_border():
    pytest.importorskip("triton")
    sides, count = torch.tensor([1.0, 5.0, 31.0, 32.0]), 4
    values = few(32)._make(value.repeat(2)[:count] for value in few(32))
    height, width = sides, sides.flip(0)
    values = values._replace(height=height, width=width, top=32 - height, left=32 - width)
    values = values._replace(solarize=torch.full((count,), math.inf))
    made = augmented(photos(count).to(DEVICE), values, size=11, form="fused").cpu()
    torch.testing.assert_close(made, augmented(photos(count), values, size=11), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["chosen", "static", "fused"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_views_are_rounded_to_the_type_and_written_in_any_layout(form, dtype):
    if form == "fused":
        pytest.importorskip("triton")
    images, values = photos(1), few(32)._make(value[:1] for value in few(32))
    values = values._replace(solarize=torch.tensor([math.inf]))
    expected = augmented(images, values, size=12)
    made = augmented(images.to(DEVICE), values, size=12, form=form, dtype=dtype, order=torch.channels_last).cpu()
    assert made.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made.float(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_images_give_the_host_and_the_device_part_what_batches_have():
    """Squares, whole pictures, and local views from images of another resolution."""
    rows, labels, positions = torch.tensor([4, 2, 0, 1]), torch.arange(4), torch.tensor([3, 0, 2])
    ranges = LineRanges(LENGTHS)
    squares = Images(pixels=photos(5), rows=rows, labels=labels)
    whole = Images(pixels=lines(), rows=rows, labels=labels, ranges=ranges)
    for images in (
        squares,
        whole,
        dataclasses.replace(squares, local=dataclasses.replace(squares, pixels=photos(5, 64))),
        dataclasses.replace(whole, local=dataclasses.replace(whole, pixels=lines(48))),
    ):
        made = [
            make_views(each.batch(positions)[0], BUSY, seed=0, step=3, batch=slice(0, 3), global_batch=3)[number]
            for number, each in enumerate(images.resolutions)
        ]
        fields = fields_of(images.shapes(positions), BUSY, 3)
        again = apply_views([each.source(positions) for each in images.resolutions], fields, BUSY)
        assert [part.shape[:2] for part in made] == [(2, 3), (2, 3)]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, made, strict=True))


class Recorder(TorchDispatchMode):
    """All operations with their shapes, types and numbers; fails where one is not on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        leaves = torch.utils._pytree.tree_leaves((args, kwargs, result))
        assert all(leaf.is_meta for leaf in leaves if isinstance(leaf, Tensor)), func
        kinds = [(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.operations.append(f"{func} {kinds}")
        return result


@pytest.mark.parametrize(
    ("images", "config", "kernels"),
    [
        (photos(8), CIFAR_VIEWS, 1),
        (photos(8), LEJEPA_SMALL_VIEWS, 2),
        (photos(8), BUSY, 0),
        (photos(8, 96), CIFAR_VIEWS, 0),
        (photos(8), dataclasses.replace(CIFAR_VIEWS, global_size=96), 0),
        (pictures(lines(), LENGTHS), LEJEPA_SMALL_VIEWS, 0),
    ],
    ids=["kernel", "two resolutions", "blur", "large images", "large views", "whole pictures"],
)
def test_the_device_part_is_the_same_in_every_step_and_on_the_device_alone(images, config, kernels, monkeypatch):
    """The meta device has shapes and no values: an operation that reads one, or a copy from the host, would fail."""
    if kernels:
        pytest.importorskip("triton")
    launched: list[str] = []
    monkeypatch.setattr(kernel_launch, "observers", [lambda name, *_: launched.append(name)])
    shapes, source = [source_of(images).shapes] * 2, source_of(images)
    there = on_meta(source)
    traces = []
    for step in range(3):
        fields = [part.to("meta") for part in fields_of(shapes, config, step)]
        if step:  # what is made once is there now
            with Recorder() as recorder:
                views = apply_views(there, fields, config, dtype=torch.bfloat16, channels_last=True)
            traces.append(recorder.operations)
        else:
            apply_views(there, fields, config)
    assert traces[0] == traces[1]
    assert len(launched) == 3 * kernels
    assert len(views) == 1 + (config.num_local > 0)
    assert all(part.flatten(0, 1).is_contiguous(memory_format=torch.channels_last) for part in views)


def test_presets_with_small_square_images_and_no_blur_use_the_kernel(monkeypatch):
    pytest.importorskip("triton")
    launched: list[str] = []
    monkeypatch.setattr(kernel_launch, "observers", [lambda name, *_: launched.append(name)])
    fused: set[str] = set()
    for name, preset in PRESETS.items():
        launched.clear()
        config, side = preset.views, preset.data.image_size
        pixels = torch.empty(2, 3, side, side, dtype=torch.uint8)
        source = source_of(pixels)
        if preset.data.fit == "whole":
            source = pictures(pixels.flatten(0, 1).view(-1, 3, side)[: 2 * side], torch.tensor([side, side]))
        fields = [x.to("meta") for x in fields_of([source.shapes] * 2, config, 0)]
        views = apply_views(on_meta(source), fields, config)
        small = preset.data.fit == "square" and config.blur == 0 and max(side, config.global_size) <= 64
        assert len(launched) == (len(views) if small else 0), name
        fused |= {name} if launched else set()
    assert fused >= {
        "digits",
        "cifar10",
        "image_folder",
        "rectified_lpjepa_cifar100_resnet18",
        "rectified_lpjepa_guide",
    }
    assert not fused & {"simclr_cifar100_resnet18", "lejepa_guide", "lejepa_imagenette_vit_s8"}
