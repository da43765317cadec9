"""Any images in folders: path/train/<class>/* and path/test/<class>/*, decoded once per machine."""

import hashlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

import torch

from jepa_train.data.base import Dataset, Images, LoadedDataset
from jepa_train.data.decode import decode_images

_log = logging.getLogger(__name__)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_LEAST = {"train": 2, "test": 1}  # images of each class: one of train becomes val


class _File(NamedTuple):
    path: str  # below the root
    size: int  # bytes
    label: int


def _identify(path: Path, _download: bool) -> str:
    return _fingerprint(_list(path)[1])


def _fingerprint(files: list[_File]) -> str:
    """16 hex digits of relative paths and file sizes. The root is left out: a copy elsewhere is the same data.

    Sizes stand in for contents, which takes a fraction of a second for 60,000 files instead of reading them all.
    """
    text = "".join(f"{file.path}\t{file.size}\n" for file in files)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _load(path: Path, _download: bool, image_size: int, skip_corrupt: bool) -> LoadedDataset:
    classes, files = _list(path)
    pixels, corrupt = decode_images(
        [f"{path}/{file.path}" for file in files], name=_fingerprint(files), size=image_size, skip_corrupt=skip_corrupt
    )
    rows = torch.tensor([row for row in range(len(files)) if row not in corrupt], dtype=torch.int64)
    labels = torch.tensor([file.label for file in files])[rows]
    cut = sum(files[row].path.startswith("train/") for row in rows.tolist())
    if corrupt:
        for split, kept in (("train", labels[:cut]), ("test", labels[cut:])):
            for label in (kept.bincount(minlength=len(classes)) < _LEAST[split]).nonzero().flatten().tolist():
                folder = f"{split}/{classes[label]}/"
                first = next(name for row in sorted(corrupt) if (name := files[row].path).startswith(folder))
                rule = f"at least {_LEAST[split]} images in {folder} that can be read"
                raise ValueError(f"data.path must hold {rule}, got {str(path)!r}, where {first} cannot; replace it")
        first = files[min(corrupt)].path
        _log.warning("skipped %d of %d images of %s, the first is %s", len(corrupt), len(files), path, first)
    return LoadedDataset(
        train=Images(pixels=pixels, rows=rows[:cut], labels=labels[:cut]),
        test=Images(pixels=pixels, rows=rows[cut:], labels=labels[cut:]),
        classes=classes,
        skipped=len(corrupt),
    )


def _list(root: Path) -> tuple[tuple[str, ...], list[_File]]:
    """The class names and every image below the root, sorted, train before test.

    Raises:
        ValueError: the first rule of the layout that is broken.
    """
    if root == Path():
        raise ValueError("data.path must be set for an image folder, got ''; set data.path=DIR")
    if not root.is_dir():
        raise ValueError(f"data.path must be a folder, got {str(root)!r}, which is none; set data.path=DIR")
    classes = {split: [name for name, entry in _entries(root / split) if entry.is_dir()] for split in _LEAST}
    if unequal := sorted({*classes["train"]} ^ {*classes["test"]}):
        raise _broken(root, f"the same classes in train/ and test/: one of them lacks {unequal[0]!r}")
    if len(classes["train"]) < 2:
        raise _broken(root, f"at least 2 classes: there are {classes['train']}")
    files = []
    for split, least in _LEAST.items():
        for label, name in enumerate(classes[split]):
            entries = _entries(root / split / name)
            images = [item for item in entries if item[0].lower().endswith(_SUFFIXES) and item[1].is_file()]
            if len(images) < least:
                rule = f"at least {least} images ({' '.join(_SUFFIXES)}) in {split}/{name}/: it has {len(images)}"
                raise _broken(root, rule)
            files += [_File(f"{split}/{name}/{file}", entry.stat().st_size, label) for file, entry in images]
    return tuple(classes["train"]), files


def _entries(folder: Path) -> list[tuple[str, os.DirEntry[str]]]:
    """The entries of a folder, sorted by name, without hidden ones; [] if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted((entry.name, entry) for entry in os.scandir(folder) if not entry.name.startswith("."))


def _broken(root: Path, rule: str) -> ValueError:
    layout = "train/<class>/ and test/<class>/"
    return ValueError(f"data.path must hold {rule}, got {str(root)!r}; lay it out as {layout}")


IMAGE_FOLDER = Dataset(identify=_identify, load=_load)
