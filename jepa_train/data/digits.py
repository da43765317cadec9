"""The 1,797 handwritten digits, 8 x 8, that scikit-learn bundles: real images, nothing to download."""

from pathlib import Path

import torch

from jepa_train.data.base import Dataset, Images, Source, resized, stratified

_TEST_FRACTION = 0.2  # scikit-learn ships one set; this split of it is fixed, so results compare across projects' runs


def _identify(_path: Path, _download: bool) -> str:
    return ""


def _load(_path: Path, _download: bool, image_size: int, _skip_corrupt: bool) -> Source:
    from sklearn.datasets import load_digits  # here: importing it costs a second that other datasets need not pay

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)  # (N, 8, 8), from 0..16
    images = Images(
        pixels=resized(grey[:, None].repeat(1, 3, 1, 1), image_size),
        rows=torch.arange(len(grey)),
        labels=torch.from_numpy(bunch.target).long(),
    )
    train, test = stratified(images.labels, _TEST_FRACTION, purpose="digits test")
    classes = tuple(str(name) for name in bunch.target_names)
    return Source(train=images.take(train), test=images.take(test), classes=classes)


DIGITS = Dataset(identify=_identify, load=_load)
