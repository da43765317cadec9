"""Small folders of images for tests, their configs, and their content as bytes."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from jepa_train.config import DataConfig
from jepa_train.data import Images
from jepa_train.data.pictures import Source


def write_folder(root: Path) -> Path:
    """2 classes, 6 train and 3 test images each, uniform colours in several formats: red = class, green = number."""
    for split, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                suffix = ("png", "bmp", "PNG")[number % 3]
                colour = (100 * label, 20 * number, 200 if split == "train" else 0)
                Image.new("RGB", (24, 16), colour).save(root / split / name / f"{number}.{suffix}")
    return root


def folder_config(where: Path | str, **fields: Any) -> DataConfig:
    return DataConfig(name="image_folder", path=str(where), **{"image_size": 8, "val_frac": 0.34} | fields)


def gathered(source: Source) -> torch.Tensor:
    """The squares of a batch, (n, C, S, S)."""
    return source.pixels.index_select(0, source.first)


def pixels_of(images: Images) -> torch.Tensor:
    return gathered(images.batch(torch.arange(len(images)))[0])


def batch_of(images: Images) -> tuple[bytes, list[int]]:
    """Pixels and labels, to be compared."""
    return pixels_of(images).numpy().tobytes(), images.labels.tolist()
