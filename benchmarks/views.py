"""Views per second, in batches on the device, against torchvision's transforms v2 on one image after the other.

Both on one CPU thread, as in a loader's worker, so that the rates are per core (on a GPU ours run there). torchvision
gets Pillow images, on which it is faster than on tensors. Expect 5 to 10 times on a CPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.comparison import Comparison
from benchmarks.timing import Setting, interleaved
from jepa_train.base.seeds import generator
from jepa_train.config import ViewsConfig
from jepa_train.config.augmentation_presets import CIFAR_VIEWS, IMAGENET100_VIEWS
from jepa_train.data import Images
from jepa_train.data.augment import make_views
from jepa_train.data.pictures import LineRanges, Source

BATCH, QUICK_BATCH = 256, 4
RECIPES = {
    "CIFAR recipe": CIFAR_VIEWS,
    "the same with blur": replace(CIFAR_VIEWS, global_size=96, blur=0.5),  # Rectified LpJEPA's ImageNet-100 recipe
}


def run(setting: Setting) -> Iterator[Comparison]:
    """One row per recipe, and one of whole pictures."""
    with _one_thread():
        for name, config in RECIPES.items():
            yield _compared(name, config, setting)
        yield _whole_pictures(setting)


def per_image(config: ViewsConfig) -> Callable[[Image.Image], Tensor]:
    """The recipe of the global views as torchvision's transforms: a Pillow image -> (3, s, s) float32."""
    size = config.global_size
    kernel = max(3, size // 10 | 1)  # as jepa_train's
    jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
    transforms = [
        v2.RandomResizedCrop(size, scale=(config.global_scale_min, config.global_scale_max)),
        v2.RandomHorizontalFlip(config.flip),
        v2.RandomApply([jitter], config.jitter),
        v2.RandomGrayscale(config.grayscale),
        v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], config.blur),
        v2.RandomSolarize(128, config.solarize),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.25] * 3),
    ]
    return v2.Compose(transforms)


def _compared(name: str, config: ViewsConfig, setting: Setting) -> Comparison:
    batch = QUICK_BATCH if setting.quick else BATCH
    size = config.global_size
    images = torch.randint(0, 256, (batch, 3, size, size), generator=generator(0, "images"), dtype=torch.uint8)
    files = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    transform = per_image(config)
    source = _on_device(images, setting)

    def one_by_one() -> Tensor:
        views = [torch.stack([transform(file) for file in files]) for _ in range(config.num_global)]
        return torch.stack(views).to(setting.device)  # (V, N, 3, s, s)

    in_batches = partial(make_views, source, config, seed=0, step=0, batch=slice(0, batch), global_batch=batch)
    times = interleaved((one_by_one, in_batches), setting.effort, setting.device)
    return Comparison(
        what="views",
        against="torchvision v2, image by image",
        shape=f"{config.num_global} x {batch} of {size} px, {name}, one thread",
        reference=times[0],
        ours=times[1],
        items=config.num_global * batch,
    )


def _whole_pictures(setting: Setting) -> Comparison:
    batch, size, length = QUICK_BATCH if setting.quick else BATCH, 256, 341  # 500 x 375 pixels, whole
    shape = (batch * length, 3, size)
    lines = torch.randint(0, 256, shape, generator=generator(0, "lines"), dtype=torch.uint8)
    squares = lines.view(batch, length, 3, size)[:, :size].transpose(1, 2).contiguous()
    sources = _on_device(squares, setting), _on_device(lines, setting, LineRanges(torch.full((batch,), -length)))
    views = [
        partial(make_views, source, IMAGENET100_VIEWS, seed=0, step=0, batch=slice(0, batch), global_batch=batch)
        for source in sources
    ]
    times = interleaved(views, setting.effort, setting.device)
    return Comparison(
        what="views of whole pictures of 4:3",
        against="those of their center squares",
        shape=f"2 x {batch} of 224 px from {size} x {length}, ImageNet-100 recipe, one thread",
        reference=times[0],
        ours=times[1],
        is_cost=True,
        items=2 * batch,
    )


def _on_device(pixels: Tensor, setting: Setting, ranges: LineRanges | None = None) -> Source:
    """All of some squares, or of whole pictures with these ranges."""
    every = torch.arange(len(pixels) if ranges is None else len(ranges.lengths))
    images = Images(pixels=pixels, rows=every, labels=every, ranges=ranges)
    return images.on(setting.device).batch(every)[0]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
