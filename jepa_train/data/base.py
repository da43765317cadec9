"""Interface of the datasets and their shared functions: resizing and stratified, deterministic splits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.base.seeds import generator
from jepa_train.data.device_transfer import resident, sent


@dataclass(frozen=True, kw_only=True)
class Images:
    """Labelled images: some rows of an array of pixels, which splits and processes share. Nobody writes into it."""

    pixels: Tensor  # (M, 3, H, W) uint8, mostly a read-only memory map
    rows: Tensor  # (N,) int64, of pixels, on the device of the pixels
    labels: Tensor  # (N,) int64, on the device where batch() answers

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor) -> "Images":
        """The images at these positions (k,) int64; the pixels stay where they are."""
        return Images(pixels=self.pixels, rows=self.rows[positions], labels=self.labels[positions])

    def on(self, device: torch.device) -> "Images":
        """The images for training on this device: batch() then answers there.

        Pixels that fit on a GPU (device_transfer.resident) lie there from now on; others stay in the host's memory map.
        """
        labels = self.labels.to(device)
        pixels = resident(self.pixels, labels.device)
        return Images(pixels=pixels, rows=self.rows.to(pixels.device), labels=labels)

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (n, 3, H, W) and labels (n,) at these positions, which lie on the CPU. Waits for no device."""
        device = self.labels.device
        there = sent(positions, device)
        labels = self.labels.index_select(0, there)
        if self.pixels.device == device:
            return self.pixels.index_select(0, self.rows.index_select(0, there)), labels
        shape = (len(positions), *self.pixels.shape[1:])
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True)  # torch keeps it until the copy is through
        torch.index_select(self.pixels, 0, self.rows[positions], out=pixels)
        return pixels.to(device, non_blocking=True), labels


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Train, val (carved out of the training split) and test, with the class names in label order."""

    train: Images
    val: Images
    test: Images
    classes: tuple[str, ...]
    skipped: int  # corrupt images that were left out of all three


@dataclass(frozen=True, kw_only=True)
class LoadedDataset:
    """Content of a dataset: square images, with the class names in label order."""

    train: Images
    test: Images
    classes: tuple[str, ...]
    skipped: int = 0  # corrupt images


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One row of DATASETS. Both functions raise ValueError for data that is missing or malformed.

    Args:
        identify: (path, download) -> what names the content ("" where the name says it all). Cheap: it runs before
            anything starts. Path() means unset.
        load: (path, download, image_size, skip_corrupt) -> the images at that size, in pixels.
    """

    identify: Callable[[Path, bool], str]
    load: Callable[[Path, bool, int, bool], LoadedDataset]


def resized(pixels: Tensor, size: int) -> Tensor:
    """Square images at another size, bilinear with antialiasing: (N, 3, H, H) uint8 -> (N, 3, size, size) uint8."""
    if pixels.shape[-1] == size:
        return pixels
    return functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)


def stratified(labels: Tensor, fraction: float, *, purpose: str) -> tuple[Tensor, Tensor]:
    """Positions (rest, held out), both ascending: of every class, `fraction` of its images are held out.

    Each class keeps at least one image on either side. The draw depends on the purpose and on nothing else.

    Args:
        labels: (N,) int64.

    Raises:
        ValueError: a class has a single image.
    """
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            raise ValueError(f"data.path must hold at least 2 images of each class, number {label} has 1; add one")
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        order = torch.randperm(len(members), generator=generator(purpose, label))
        held_out[members[order[:count]]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
