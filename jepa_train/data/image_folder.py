"""Any images in folders, decoded once per machine.

With labels they lie in path/train/<class>/*, path/test/<class>/* or path/<class>/*, without labels anywhere below path.
"""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch

from jepa_train.base.errors import require
from jepa_train.config import DataConfig
from jepa_train.data.base import Dataset, Images, Inventory, LoadedDataset
from jepa_train.data.files.content import Contents, decoded_images, read_files, read_index
from jepa_train.data.files.decode import CONVERSIONS, Note
from jepa_train.data.files.listing import Listing, PixelFormat, list_folder, printable

_log = logging.getLogger(__name__)


def _identify(labelled: bool, path: Path, config: DataConfig) -> Inventory:
    listing = _list(labelled, path, config)
    return _inventory(listing, read_index(listing))


def _read(labelled: bool, path: Path, config: DataConfig, keep: bool) -> Inventory:
    listing, skip = _list(labelled, path, config), config.on_corrupt == "skip"
    if keep and not read_index(listing).known.any():  # decode once: a cell would do it next
        contents = decoded_images(listing, config.image_size, whole=config.fit == "whole", skip_corrupt=skip)[2]
    else:
        contents = read_files(listing, skip_corrupt=skip)
    _check_classes(listing, contents)
    return _inventory(listing, contents)


def _load(labelled: bool, path: Path, config: DataConfig) -> LoadedDataset:
    listing = _list(labelled, path, config)
    whole, skip = config.fit == "whole", config.on_corrupt == "skip"
    pixels, ranges, contents = decoded_images(listing, config.image_size, whole=whole, skip_corrupt=skip)
    _check_classes(listing, contents)
    corrupt = np.flatnonzero(contents.corrupt)
    if len(corrupt):
        first = printable(listing.files[corrupt[0]])
        _log.warning("skipped %d of %d images of %s, the first is %s", len(corrupt), len(listing.files), path, first)
    rows = torch.from_numpy(np.flatnonzero(~contents.corrupt))
    images = Images(pixels=pixels, rows=rows, labels=torch.from_numpy(listing.labels)[rows], ranges=ranges)
    if config.local_image_size:
        pixels, ranges, _ = decoded_images(listing, config.local_image_size, whole=whole, skip_corrupt=skip)
        images = replace(images, local=replace(images, pixels=pixels, ranges=ranges))
    in_train = rows < listing.num_train
    return LoadedDataset(
        train=images.take(in_train.nonzero().flatten()),
        test=images.take((~in_train).nonzero().flatten()),
        classes=listing.classes,
        inventory=_inventory(listing, contents),
    )


def _list(labelled: bool, path: Path, config: DataConfig) -> Listing:
    """The files of a folder. Refuses images for local views that memory cannot hold: steps would wait for the disk."""
    listing = list_folder(path, PixelFormat(config.channels, config.bits), labelled=labelled)
    count, size = len(listing.files), config.local_image_size
    shape = 4 / 3 if config.fit == "whole" else 1  # most photographs are 4:3 or 3:2
    needed = count * config.channels * config.bits / 8 * shape * size**2
    total = psutil.virtual_memory().total
    require(
        needed <= total,
        f"data.local_image_size must leave the images in memory, got {size}: {count:,} images take about "
        f"{needed / 1e9:.0f} GB of {total / 1e9:.0f}; lower it, or 0 for local views from those of data.image_size",
    )
    return listing


def _inventory(listing: Listing, contents: Contents) -> Inventory:
    readable = ~contents.corrupt
    labels, cut = torch.from_numpy(listing.labels[readable]), int(readable[: listing.num_train].sum())
    counts = {words: int(contents.having(note).sum()) for note, words in CONVERSIONS.items()}
    return Inventory(
        fingerprint=contents.fingerprint,
        content=contents.content,
        altered=bool(contents.having(Note.ALTERED).any()),
        has_test=listing.has_test,
        classes=listing.classes,
        labels=(labels[:cut], labels[cut:]),
        unread=int((~contents.known).sum()),
        skipped=int((~readable).sum()),
        unused=listing.unused,
        converted={words: count for words, count in counts.items() if count},
    )


def _check_classes(listing: Listing, contents: Contents) -> None:
    """Refuse a folder of which corrupt files leave a class without enough images."""
    corrupt, train = contents.corrupt, np.arange(len(listing.files)) < listing.num_train
    for split, part, least in (("train", train, 2), ("test", ~train, 1)):
        for label in np.unique(listing.labels[part & corrupt]):
            of_class = part & (listing.labels == label)
            if (of_class & ~corrupt).sum() < least:
                first = printable(listing.files[np.flatnonzero(of_class & corrupt)[0]])
                name = f"{listing.classes[label]}/" if listing.classes else ""
                folder = printable(f"{split}/{name}" if first.startswith(f"{split}/") and name else name)
                rule = f"at least {least} images{f' in {folder}' if folder else ''} that can be read"
                raise ValueError(f"data.path must hold {rule}, got {listing.root!r}, where {first} cannot; replace it")


def _row(*, labelled: bool) -> Dataset:
    identify, load, read = partial(_identify, labelled), partial(_load, labelled), partial(_read, labelled)
    return Dataset(identify=identify, load=load, read=read, labelled=labelled)


IMAGE_FOLDER, UNLABELLED_FOLDER = _row(labelled=True), _row(labelled=False)
