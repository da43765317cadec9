"""Any images in folders: path/train/<class>/* and path/test/<class>/*, decoded once per machine."""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_train.data.base import Dataset, Images, LoadedDataset
from jepa_train.data.decode import decoded

_log = logging.getLogger(__name__)
_NAMED = 3  # of the images that were skipped
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_LAYOUT = "train/<class>/ and test/<class>/"


class _File(NamedTuple):
    path: str  # below the root
    size: int  # bytes
    label: int


@dataclass(frozen=True, kw_only=True)
class _Listing:
    classes: tuple[str, ...]
    train: list[_File]
    test: list[_File]

    def fingerprint(self) -> str:
        """16 hex digits of relative paths and file sizes. The root stays out: a copy elsewhere is the same data.

        Sizes stand in for contents, which takes a fraction of a second for 60,000 files instead of reading them all.
        """
        text = "".join(f"{file.path}\t{file.size}\n" for file in self.train + self.test)
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _identify(path: Path, _download: bool) -> str:
    return _list(path).fingerprint()


def _load(path: Path, _download: bool, image_size: int, skip_corrupt: bool) -> LoadedDataset:
    listing = _list(path)
    files = listing.train + listing.test
    pixels, corrupt = decoded(
        [f"{path}/{file.path}" for file in files],
        name=listing.fingerprint(),
        size=image_size,
        skip_corrupt=skip_corrupt,
    )
    rows = torch.tensor([row for row in range(len(files)) if row not in corrupt], dtype=torch.int64)
    labels = torch.tensor([files[row].label for row in rows.tolist()], dtype=torch.int64)
    cut = int((rows < len(listing.train)).sum())
    if corrupt:
        names = [files[row].path for row in corrupt]
        _check_what_is_left(path, listing.classes, labels[:cut], labels[cut:], skipped=names)
        _log.warning(
            "skipped %d of %d images of %s, which cannot be read: %s%s",
            *(len(names), len(files), path, ", ".join(names[:_NAMED]), ", ..." if len(names) > _NAMED else ""),
        )
    return LoadedDataset(
        train=Images(pixels=pixels, rows=rows[:cut], labels=labels[:cut]),
        test=Images(pixels=pixels, rows=rows[cut:], labels=labels[cut:]),
        classes=listing.classes,
        skipped=len(corrupt),
    )


def _check_what_is_left(
    root: Path, classes: tuple[str, ...], train: Tensor, test: Tensor, *, skipped: list[str]
) -> None:
    """What _list demands of the files, of those that can be read: labels of train and of test."""
    for split, labels, least in (("train", train, 2), ("test", test, 1)):
        for name, count in zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True):
            if count < least:
                first = next(file for file in skipped if file.startswith(f"{split}/{name}/"))
                raise ValueError(
                    f"data.path must hold at least {least} {split} images of each class that can be read: {name!r} has "
                    f"{count} in {str(root)!r}, as {first!r} for one is corrupt; replace it"
                )


def _list(root: Path) -> _Listing:
    """Every image below the root in sorted order; ValueError names the first rule of the layout that is broken."""
    if root == Path():
        raise ValueError("data.path must be set for an image folder, got ''; set data.path=DIR")
    if not root.is_dir():
        raise ValueError(f"data.path must be a folder, got {str(root)!r}, which is none; set data.path=DIR")
    splits = {split: _classes(root, split) for split in ("train", "test")}
    for here, there in (("train", "test"), ("test", "train")):
        for name in splits[here]:
            if name not in splits[there]:
                raise _broken(root, f"the same classes in both splits: {name!r} lies only in {here}/")
    classes = tuple(splits["train"])
    if len(classes) < 2:
        raise _broken(root, f"at least 2 classes: there is only {classes[0]!r}")
    for name, files in splits["train"].items():
        if len(files) < 2:
            raise _broken(root, f"at least 2 train images of each class, one becomes val: {name!r} has {len(files)}")
    train, test = (
        [
            _File(path=f"{split}/{name}/{file}", size=size, label=label)
            for label, name in enumerate(classes)
            for file, size in splits[split][name]
        ]
        for split in ("train", "test")
    )
    return _Listing(classes=classes, train=train, test=test)


def _classes(root: Path, split: str) -> dict[str, list[tuple[str, int]]]:
    """{class: [(file name, bytes)]}, both sorted; hidden folders and files that are no images do not count."""
    folder = root / split
    if not folder.is_dir():
        raise _broken(root, f"{split}/: there is none")
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise _broken(root, f"{split}/ with one folder per class: it has no folders")
    classes = {name: _images(folder / name) for name in names}
    for name, files in classes.items():
        if not files:
            raise _broken(root, f"images ({' '.join(_SUFFIXES)}) of every class: {split}/{name}/ has none")
    return classes


def _images(folder: Path) -> list[tuple[str, int]]:
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, entry.stat().st_size)
            for entry in entries
            if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
        )


def _broken(root: Path, rule: str) -> ValueError:
    return ValueError(f"data.path must hold {rule}, got {str(root)!r}; lay it out as {_LAYOUT}")


IMAGE_FOLDER = Dataset(identify=_identify, load=_load)
