"""The 1,797 handwritten digits, 8 x 8, that scikit-learn bundles: real images, nothing to download.

Also its two halves by class, 0 to 4 and 5 to 9, to pre-train on one and to transfer to the other.
"""

import functools
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_train.config import DataConfig
from jepa_train.data.base import Dataset, Images, LoadedDataset, resize, stratified_split

_TEST_FRACTION = 0.2  # scikit-learn ships one set without a split
_DIGEST = "266c0eff01ab619b"  # of the rows in scikit-learn's file: 64 pixels and the label, uint8
_CLASS_SIZES = (142, 146, 142, 146, 145, 146, 145, 143, 139, 144)  # of the training split


def _load(first: int, last: int, _path: Path, config: DataConfig) -> LoadedDataset:
    strokes, labels = _read()
    grey = strokes.mul(255 / 16).round().to(torch.uint8)
    images = Images(
        pixels=resize(grey[:, None].repeat(1, 3, 1, 1), config.image_size), rows=torch.arange(len(grey)), labels=labels
    )
    # Split before the classes are selected: a half keeps the split of the whole.
    train, test = stratified_split(images.labels, _TEST_FRACTION, purpose="digits test")
    classes = tuple(map(str, range(first, last + 1)))
    return LoadedDataset(
        train=_between(images.take(train), first, last), test=_between(images.take(test), first, last), classes=classes
    )


def _read() -> tuple[Tensor, Tensor]:
    """The pixels (N, 8, 8) float64, 0 to 16, and labels (N,) of sklearn.datasets.load_digits.

    Importing scikit-learn takes longer than the first epoch; numpy reads its file in 5 ms.
    """
    package = find_spec("sklearn")
    assert package is not None, "a dependency"
    assert package.origin is not None
    rows = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.uint8)
    if hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest() != _DIGEST:
        raise ValueError(
            "data.name=digits must be scikit-learn's 1,797 digits, got another file; reinstall scikit-learn"
        )
    return torch.from_numpy(rows[:, :-1]).view(-1, 8, 8).double(), torch.from_numpy(rows[:, -1]).long()


def _between(images: Images, first: int, last: int) -> Images:
    """The images of these classes, with labels from 0."""
    found = images.take(((images.labels >= first) & (images.labels <= last)).nonzero().flatten())
    return Images(pixels=found.pixels, rows=found.rows, labels=found.labels - first)


def _row(first: int, last: int) -> Dataset:
    return Dataset(load=functools.partial(_load, first, last), class_sizes=_CLASS_SIZES[first : last + 1])


DIGITS, DIGITS_0_4, DIGITS_5_9 = _row(0, 9), _row(0, 4), _row(5, 9)
