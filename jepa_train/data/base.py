"""What a dataset is, and how val is carved out of train."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Images:
    """Labelled images: pixels (N, 3, H, W) uint8, labels (N,) int64."""

    pixels: Tensor
    labels: Tensor


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
            the data is missing, empty or malformed. Cheap: it runs before anything starts.
        load: (path, download, image_size) -> (train Images, test Images, classes), square images.
    """

    identify: Callable[[Path, bool], str]
    load: Callable[[Path, bool, int], tuple[Images, Images, tuple[str, ...]]]
