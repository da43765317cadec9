"""The 1,797 handwritten digits, 8 x 8, that scikit-learn bundles: real images, nothing to download.

Also its two halves by class, 0 to 4 and 5 to 9, to pre-train on one and to transfer to the other.
"""

import functools
from pathlib import Path

import torch

from jepa_train.config import DataConfig
from jepa_train.data.base import Dataset, Images, LoadedDataset, resize, stratified_split

_TEST_FRACTION = 0.2  # scikit-learn ships one set without a split
_CLASS_SIZES = (142, 146, 142, 146, 145, 146, 145, 143, 139, 144)  # of the training split


def _load(first: int, last: int, _path: Path, config: DataConfig) -> LoadedDataset:
    from sklearn.datasets import load_digits  # imported here: it takes a second, for this data set alone

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)  # (N, 8, 8), from 0..16
    images = Images(
        pixels=resize(grey[:, None].repeat(1, 3, 1, 1), config.image_size),
        rows=torch.arange(len(grey)),
        labels=torch.from_numpy(bunch.target).long(),
    )
    # Split before the classes are selected: a half keeps the split of the whole.
    train, test = stratified_split(images.labels, _TEST_FRACTION, purpose="digits test")
    classes = tuple(str(name) for name in bunch.target_names[first : last + 1])
    return LoadedDataset(
        train=_between(images.take(train), first, last), test=_between(images.take(test), first, last), classes=classes
    )


def _between(images: Images, first: int, last: int) -> Images:
    """The images of these classes, with labels from 0."""
    found = images.take(((images.labels >= first) & (images.labels <= last)).nonzero().flatten())
    return Images(pixels=found.pixels, rows=found.rows, labels=found.labels - first)


def _row(first: int, last: int) -> Dataset:
    return Dataset(load=functools.partial(_load, first, last), class_sizes=_CLASS_SIZES[first : last + 1])


DIGITS, DIGITS_0_4, DIGITS_5_9 = _row(0, 9), _row(0, 4), _row(5, 9)
