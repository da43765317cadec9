"""Any images in folders: path/train/<class>/*, path/test/<class>/* or path/<class>/*, decoded once per machine."""

import logging
from pathlib import Path

import numpy as np
import torch

from jepa_train.config import DataConfig
from jepa_train.data.base import Dataset, Images, Inventory, LoadedDataset
from jepa_train.data.files.content import Contents, decoded_images, read_files, read_index
from jepa_train.data.files.decode import CONVERSIONS, Note
from jepa_train.data.files.listing import Listing, list_folder, printable

_log = logging.getLogger(__name__)


def _identify(path: Path, _config: DataConfig) -> Inventory:
    listing = list_folder(path)
    return _inventory(listing, read_index(listing))


def _read(path: Path, config: DataConfig, keep: bool) -> Inventory:
    listing, skip = list_folder(path), config.on_corrupt == "skip"
    if keep and not read_index(listing).known.any():  # decode once: a cell would do it next
        contents = decoded_images(listing, config.image_size, skip_corrupt=skip)[1]
    else:
        contents = read_files(listing, skip_corrupt=skip)
    _check_classes(listing, contents)
    return _inventory(listing, contents)


def _load(path: Path, config: DataConfig) -> LoadedDataset:
    listing = list_folder(path)
    pixels, contents = decoded_images(listing, config.image_size, skip_corrupt=config.on_corrupt == "skip")
    _check_classes(listing, contents)
    corrupt = np.flatnonzero(contents.corrupt)
    if len(corrupt):
        first = printable(listing.files[corrupt[0]])
        _log.warning("skipped %d of %d images of %s, the first is %s", len(corrupt), len(listing.files), path, first)
    rows = torch.from_numpy(np.flatnonzero(~contents.corrupt))
    train, test = (
        Images(pixels=pixels, rows=part, labels=torch.from_numpy(listing.labels)[part])
        for part in (rows[rows < listing.num_train], rows[rows >= listing.num_train])
    )
    return LoadedDataset(train=train, test=test, classes=listing.classes, inventory=_inventory(listing, contents))


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
                name = listing.classes[label]
                folder = printable(f"{split}/{name}" if first.startswith(f"{split}/") else name)
                rule = f"at least {least} images in {folder}/ that can be read"
                raise ValueError(f"data.path must hold {rule}, got {listing.root!r}, where {first} cannot; replace it")


IMAGE_FOLDER = Dataset(identify=_identify, load=_load, read=_read)
