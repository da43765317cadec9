"""What a dataset is, and what the sources share: resizing and stratified, deterministic splits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.randomness import generator


@dataclass(frozen=True, kw_only=True)
class Images:
    """Labelled images: pixels (N, 3, H, W) uint8, labels (N,) int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor) -> "Images":
        """The images at these positions, copied."""
        return Images(pixels=self.pixels[positions], labels=self.labels[positions])

    def on(self, device: torch.device) -> "Images":
        """The images for training on this device: batch() then answers there."""
        return Images(pixels=self.pixels.to(device), labels=self.labels.to(device))

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (n, 3, H, W) and labels (n,) at these positions, which lie on the CPU."""
        positions = positions.to(self.labels.device, non_blocking=True)
        return self.pixels[positions], self.labels[positions]


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Train, val (carved out of the training split) and test, with the class names in label order."""

    train: Images
    val: Images
    test: Images
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One row of DATASETS.

    Args:
        identify: (path, download) -> what names the content ("" where the name says it all); raises ValueError when
            the data is missing, empty or malformed. Cheap: it runs before anything starts. Path() means unset.
        load: (path, download, image_size) -> (train Images, test Images, classes), square images.
    """

    identify: Callable[[Path, bool], str]
    load: Callable[[Path, bool, int], tuple[Images, Images, tuple[str, ...]]]


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
