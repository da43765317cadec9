"""CIFAR-10 and CIFAR-100 through torchvision, downloaded only when data.download=true; or as folders of images.

A fingerprint distinguishes folders (train/<class>/*, test/<class>/*) from the authors' files: JPEGs have other pixels.
"""

import functools
import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_train.config import DataConfig
from jepa_train.data.base import Dataset, Images, Inventory, LoadedDataset, resize
from jepa_train.data.cache import ArraySource, cached_array, one_at_a_time
from jepa_train.data.image_folder import IMAGE_FOLDER

_FORMAT = 1  # part of the cache's name: raise it when the same files would give other pixels
_CHUNK = 1000  # images per chunk of resizing


def _identify(kind: str, folder: str, path: Path, config: DataConfig) -> Inventory:
    if path == Path():
        raise ValueError(
            f"data.path must be set, got ''; set data.path=DIR where {folder}/ lies, or is to be downloaded"
        )
    if _as_images(kind, folder, path):
        return IMAGE_FOLDER.identify(path, config)
    missing = [] if config.download else _missing(kind, path / folder)
    if missing:
        raise ValueError(
            f"data.path must hold {folder}/{missing[0]}, or images as train/<class>/ and test/<class>/, got "
            f"{str(path)!r}, which does not; set data.path=DIR where they lie, or data.download=true"
        )
    return Inventory()


def _as_images(kind: str, folder: str, path: Path) -> bool:
    """True if the path holds folders of images and not the authors' files."""
    return (path / "train").is_dir() and bool(_missing(kind, path / folder))


def _missing(kind: str, folder: Path) -> list[str]:
    return [name for name in _files(kind) if not (folder / name).is_file()]


def _files(kind: str) -> list[str]:
    from torchvision import datasets

    dataset = getattr(datasets, kind)
    return [name for name, _ in dataset.train_list + dataset.test_list] + [dataset.meta["filename"]]


def _read(kind: str, folder: str, path: Path, config: DataConfig, keep: bool) -> Inventory:
    return IMAGE_FOLDER.read(path, config, keep) if _as_images(kind, folder, path) else Inventory()


def _load(kind: str, folder: str, path: Path, config: DataConfig) -> LoadedDataset:
    _identify(kind, folder, path, config)
    if _as_images(kind, folder, path):
        return IMAGE_FOLDER.load(path, config)
    if config.download and _missing(kind, path / folder):
        path.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(path / f".{folder}"):
            if _missing(kind, path / folder):
                _open(kind, folder, path, download=True)
    files = [(path / folder / name).stat() for name in _files(kind)]
    text = "".join(f"{file.st_size}\t{file.st_mtime_ns}\n" for file in files)
    name = f"{kind}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}-{config.image_size}-{_FORMAT}"
    pixels, facts = cached_array(name, lambda: _source(*_open(kind, folder, path, download=False), config.image_size))
    labels = torch.tensor(facts["labels"])
    rows = torch.arange(len(labels))
    cut = facts["train"]
    return LoadedDataset(
        train=Images(pixels=pixels, rows=rows[:cut], labels=labels[:cut]),
        test=Images(pixels=pixels, rows=rows[cut:], labels=labels[cut:]),
        classes=tuple(facts["classes"]),
    )


def _open(kind: str, folder: str, path: Path, *, download: bool) -> tuple[Any, Any]:
    """torchvision's datasets (train, test), with verified checksums: once per cached array."""
    from torchvision import datasets  # imported here: it takes a second, for this data set alone

    try:
        train, test = (getattr(datasets, kind)(path, train=part, download=download) for part in (True, False))
    except (RuntimeError, OSError) as error:  # missing files and failed checksums
        reason = " ".join(str(error).split())
        raise ValueError(
            f"data.path must hold a complete {folder}/, got {str(path)!r} ({reason}); "
            f"delete {folder}/ there and set data.download=true"
        ) from error
    return train, test


def _source(train: Any, test: Any, size: int) -> ArraySource:
    images = np.concatenate([train.data, test.data])  # (M, 32, 32, 3)

    def parts() -> Generator[np.ndarray, None, None]:
        for start in range(0, len(images), _CHUNK):
            some = torch.from_numpy(images[start : start + _CHUNK]).permute(0, 3, 1, 2).contiguous()
            yield resize(some, size).numpy()

    return ArraySource(
        rows=len(images),
        shape=(3, size, size),
        parts=parts(),
        facts={"labels": [*train.targets, *test.targets], "train": len(train.data), "classes": train.classes},
    )


def _row(kind: str, folder: str, *, classes: int) -> Dataset:
    return Dataset(
        identify=functools.partial(_identify, kind, folder),
        load=functools.partial(_load, kind, folder),
        read=functools.partial(_read, kind, folder),
        class_sizes=(50_000 // classes,) * classes,
    )


CIFAR10 = _row("CIFAR10", "cifar-10-batches-py", classes=10)
CIFAR100 = _row("CIFAR100", "cifar-100-python", classes=100)
