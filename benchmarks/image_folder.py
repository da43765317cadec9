"""One pass over an image folder, against torchvision's ImageFolder, which decodes every file in every epoch.

Cold: nothing is cached, so decoding and writing the cache are part of it. Warm: what every later trial and epoch pays.
Both sides end with every image as uint8 on the device, in batches. The files lie in the system's page cache.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.comparison import Comparison
from benchmarks.timing import Setting, interleaved
from jepa_train.base.seeds import generator
from jepa_train.config import DataConfig
from jepa_train.data.splits import load_splits

# number of files, their side, the side that training takes
FOLDERS = ((2000, 32, 32), (200, 1024, 224))
QUICK_FOLDERS = ((20, 16, 16), (20, 32, 16))
BATCH = 256


def run(setting: Setting) -> Iterator[Comparison]:
    """Two rows, cold and warm, per synthetic folder."""
    for num, side, size in QUICK_FOLDERS if setting.quick else FOLDERS:
        with tempfile.TemporaryDirectory() as root:
            write_folder(Path(root), num=num, side=side)
            yield from _compared(Path(root), f"synthetic JPEGs of {side} px", size, setting)


def write_folder(root: Path, *, num: int, side: int) -> None:
    """Write num JPEGs of two classes, four fifths for training: coloured clouds, which compress like photographs."""
    draws = generator(0, "files")
    for number in range(num):
        folder = root / ("test" if number % 5 == 4 else "train") / ("a" if number // 5 % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = torch.rand(1, 3, side // 8, side // 8, generator=draws)
        smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)[0]
        pixels = (255 * smooth).byte().permute(1, 2, 0).contiguous()
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.jpg", quality=90)


def decode_every_file(folder: Path, size: int, device: torch.device) -> int:
    """Read all images by torchvision: resize, centre crop, batches of uint8 on the device. Returns their number."""
    transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    total = 0
    for split in ("train", "test"):
        images = ImageFolder(str(folder / split), transform=transform)
        for start in range(0, len(images), BATCH):
            batch = [images[position][0] for position in range(start, min(start + BATCH, len(images)))]
            total += len(torch.stack(batch).to(device))
    return total


def load_and_fetch(folder: Path, size: int, device: torch.device) -> int:
    """Read all images by load_splits, as a new trial does, in batches on the device. Returns their number."""
    load_splits.cache_clear()  # a new trial's process has none
    splits = load_splits(DataConfig(name="image_folder", path=str(folder), image_size=size))
    total = 0
    for images in (splits.train, splits.val, splits.test):
        on_device = images.on(device)
        for positions in torch.arange(len(images)).split(BATCH):
            source, _ = on_device.batch(positions)
            total += len(source.pixels.index_select(0, source.first))
    return total


def _compared(folder: Path, name: str, size: int, setting: Setting) -> Iterator[Comparison]:
    device = setting.device
    with tempfile.TemporaryDirectory() as caches, cache_in(Path(caches) / "warm"):
        num, ours = decode_every_file(folder, size, device), load_and_fetch(folder, size, device)
        assert num == ours, "both sides read all images"

        def reference() -> int:
            return decode_every_file(folder, size, device)

        def warm() -> int:
            return load_and_fetch(folder, size, device)

        def cold() -> int:
            with tempfile.TemporaryDirectory(dir=caches) as cache, cache_in(Path(cache)):
                return load_and_fetch(folder, size, device)

        times = interleaved((reference, cold, warm), setting.effort, device)
    for state, samples in (("cold", times[1]), ("warm", times[2])):
        yield Comparison(
            what=f"image folder, {state}",
            against="torchvision's ImageFolder",
            shape=f"{num:,} {name}, at {size} px",
            reference=times[0],
            ours=samples,
            items=num,
        )


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Use a results folder, which holds jepa_train's cache, for the duration of the block."""
    with mock.patch.dict(os.environ, {"JEPA_RESULTS": str(folder)}):
        yield
        load_splits.cache_clear()  # its arrays are mapped from files that may be deleted now
