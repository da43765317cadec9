"""CIFAR-10 and CIFAR-100 through torchvision, downloaded only when data.download=true."""

import contextlib
import functools
from pathlib import Path
from typing import Any

import torch

from jepa_train.data.base import Dataset, Images, resized
from jepa_train.data.cache import one_at_a_time


def _identify(kind: str, folder: str, path: Path, download: bool) -> str:
    if path == Path():
        raise ValueError(
            f"data.path must be set, got ''; set data.path=DIR where {folder}/ lies, or is to be downloaded"
        )
    missing = [] if download else [name for name in _files(kind) if not (path / folder / name).is_file()]
    if missing:
        raise ValueError(
            f"data.path must hold {folder}/{missing[0]}, got {str(path)!r}, which does not; "
            "set data.path=DIR where it lies, or data.download=true"
        )
    return ""


def _files(kind: str) -> list[str]:
    from torchvision import datasets

    dataset = getattr(datasets, kind)
    return [name for name, _ in dataset.train_list + dataset.test_list] + [dataset.meta["filename"]]


def _load(kind: str, folder: str, path: Path, download: bool, size: int) -> tuple[Images, Images, tuple[str, ...]]:
    _identify(kind, folder, path, download)
    from torchvision import datasets  # here: importing it costs a second that other datasets need not pay

    try:
        if download:
            path.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(path / f".{folder}.lock") if download else contextlib.nullcontext():
            train, test = (getattr(datasets, kind)(path, train=part, download=download) for part in (True, False))
    except (RuntimeError, OSError) as error:  # torchvision's word for files that are missing or fail their checksum
        reason = " ".join(str(error).split())
        raise ValueError(
            f"data.path must hold a complete {folder}/, got {str(path)!r} ({reason}); "
            f"delete {folder}/ there and set data.download=true"
        ) from error
    return _images(train, size), _images(test, size), tuple(train.classes)


def _images(dataset: Any, size: int) -> Images:
    pixels = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()  # (N, 32, 32, 3) -> (N, 3, 32, 32)
    return Images(pixels=resized(pixels, size), labels=torch.tensor(dataset.targets))


def _row(kind: str, folder: str) -> Dataset:
    return Dataset(identify=functools.partial(_identify, kind, folder), load=functools.partial(_load, kind, folder))


CIFAR10 = _row("CIFAR10", "cifar-10-batches-py")
CIFAR100 = _row("CIFAR100", "cifar-100-python")
