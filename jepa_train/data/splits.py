"""Splits of a config's data set: train, val (taken from train) and test; and the identity of its data."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from jepa_train.base.errors import ConfigError, check_identity, config_errors
from jepa_train.base.seeds import generator
from jepa_train.config import DataConfig
from jepa_train.data import DATASETS, Splits
from jepa_train.data.base import Images, Inventory, stratified_split
from jepa_train.data.files.download import local_folder
from jepa_train.storage.storage import StorageError, StoragePath, storage_dir

_log = logging.getLogger(__name__)

_SAMPLE = 2048  # training images whose pixels give a normalization: its error is far below that of an image
_CHUNK = 8  # images whose squares are in memory at once


def identify(config: DataConfig) -> tuple[DataConfig, Inventory]:
    """The config with fingerprint and content filled in, and the files of the data set. Reads no image.

    The content is "" if it has to be read first; see read_images.

    Raises:
        ConfigError: the data is missing or malformed, or is not what config.fingerprint and config.content name.
        StorageError: its storage does not answer.
    """
    with _data_errors(config):
        inventory = DATASETS[config.name].identify(local_folder(config.path, download=config.download), config)
        return identified(config, inventory), inventory


def read_images(config: DataConfig, *, keep: bool) -> tuple[DataConfig, Inventory]:
    """As identify, after reading the images that have not been read on this machine or may have changed.

    Args:
        keep: write decoded images to the cache, if none has been read before.

    Raises:
        ConfigError: as identify and load_splits.
        StorageError: the storage of the data, or that of JEPA_STORAGE, does not answer.
    """
    with _data_errors(config):
        path = local_folder(config.path, download=config.download)
        inventory = DATASETS[config.name].read(path, config, keep)
        if inventory.content and not _first_content(inventory.fingerprint):
            _first_file(inventory.fingerprint).write_bytes(inventory.content.encode())
        return identified(config, inventory), inventory


def identified(config: DataConfig, inventory: Inventory) -> DataConfig:
    """The config with the identity of these files.

    Raises:
        ConfigError: they are not what the config names, or have no test split where the config needs one.
    """
    found, content = inventory.fingerprint, config.content
    if config.fingerprint and not found:
        raise ConfigError(
            f"data.fingerprint must be left out for {config.name}, which has none, got {config.fingerprint!r}"
        )
    files = f"the files of data.path={config.path!r}"
    check_identity("data.fingerprint", config.fingerprint or None, found, of=files)
    if config.test_frac and inventory.has_test:
        raise ConfigError(f"data.test_frac must be 0 for data with a test split, got {config.test_frac}; drop it")
    fields = {"fit": "square", "local_image_size": 0, "channels": 3, "bits": 8}
    for name, value in fields.items() if not found else ():
        if getattr(config, name) != value:
            rule = f"data.{name} must be {value} for {config.name}, which is no folder of images"
            raise ConfigError(f"{rule}, got {getattr(config, name)}; set data.{name}={value}")
    if inventory.content:
        new = inventory.altered or _first_content(found) not in ("", inventory.content)
        content = inventory.content if new else ""
        planned = config.content if config.fingerprint or config.content else None
        images = f"the images under the names and sizes of {files}"
        check_identity("data.content", planned, content, of=images, others=" and data.fingerprint")
    return replace(config, fingerprint=found, content=content)


def _first_content(fingerprint: str) -> str:
    """The content that was seen first under a fingerprint, by all that share the storage; "" if none has been."""
    try:
        return _first_file(fingerprint).read_bytes().decode()
    except FileNotFoundError:
        return ""


def _first_file(fingerprint: str) -> StoragePath:
    return storage_dir() / "data" / fingerprint


@functools.lru_cache(maxsize=2)  # a worker runs many cells, mostly on the same images
@config_errors()  # for example a corrupt image, which identify does not see
def load_splits(config: DataConfig) -> Splits:
    """The splits of a config. Val depends on val_frac and on no seed: every run of a data set has the same.

    All callers of this process share the result; never write into it.

    Raises:
        ConfigError: the data is missing or malformed, or is not what config.fingerprint and config.content name.
        StorageError: its storage does not answer.
    """
    if config.fingerprint:
        identify(config)
    source = DATASETS[config.name].load(local_folder(config.path, download=config.download), config)
    if config.fingerprint:
        identified(config, source.inventory)
    train, val, test = partition(config, source.train.labels)
    images = source.train.take(train)
    norm = images.norm if config.is_rgb else normalization(images)
    return Splits(
        train=images.with_norm(norm),
        val=source.train.take(val).with_norm(norm),
        test=(source.train.take(test) if len(test) else source.test).with_norm(norm),
        classes=source.classes,
        skipped=source.inventory.skipped,
    )


def normalization(images: Images) -> Tensor:
    """Factor 1 / std and offset -mean / std of each channel (2, C), for pixels in [0, 1]; Images.norm.

    Of the stored pixels of at most 2,048 images, evenly spaced. Sums are of whole numbers, so every machine and rank
    finds the same. A constant channel counts with a standard deviation of one step of its values.
    """
    most, total, count = torch.iinfo(images.pixels.dtype).max, torch.zeros((), dtype=torch.float64), 0
    rows = min(len(images), _SAMPLE)
    for some in (torch.arange(rows) * len(images) // rows).split(_CHUNK):
        x = images.pixels.index_select(0, images.rows_of(some)[0]).long().transpose(0, 1).flatten(1)  # (C, pixels)
        total, count = total + torch.stack([x.sum(1), x.square().sum(1)]).double(), count + x.shape[1]
    mean, square = total / count
    std = (square - mean.square()).clamp_min(0).sqrt().clamp_min(1)
    shown = [", ".join(f"{value / most:.4g}" for value in values.tolist()) for values in (mean, std)]
    _log.info("channels of the training images have mean %s and std %s; views are normalised by them", *shown)
    return torch.stack([most / std, -mean / std]).float()


def class_sizes(config: DataConfig, inventory: Inventory) -> tuple[int, ...]:
    """Number of training images of each class, without val; () if the files say nothing about it.

    Args:
        config: with its identity.
        inventory: of its files.

    Raises:
        ConfigError: too few images for a split of every class.
    """
    labels, sizes = inventory.labels[0], torch.tensor(DATASETS[config.name].class_sizes, dtype=torch.int64)
    if not len(labels):
        labels = torch.arange(len(sizes)).repeat_interleave(sizes)
    if not len(labels):
        return ()
    with config_errors():
        train, _, _ = partition(config, labels)
    return tuple(labels[train].bincount().tolist())


def partition(config: DataConfig, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of train, val and, for data without a test split, test among images with these labels (N,).

    Raises:
        ValueError: too few images for a split of every class.
    """
    rest, test = torch.arange(len(labels)), torch.empty(0, dtype=torch.int64)
    if config.test_frac:
        rest, test = stratified_split(labels, config.test_frac, purpose=f"test {config.split_seed}")
    rest = rest[_sample(labels[rest], config.train_images)]
    train, val = stratified_split(labels[rest], config.val_frac, purpose="val")
    return rest[train], rest[val], test


@contextmanager
def _data_errors(config: DataConfig) -> Iterator[None]:
    """Raise a ConfigError for data that is missing or malformed, or cannot be read."""
    try:
        with config_errors():
            yield
    except StorageError:
        raise
    except (OSError, RuntimeError) as error:  # permission denied, or ~ of an unknown user
        raise ConfigError(
            f"data.path must be a folder that can be read, got {config.path!r} ({error}); set data.path=DIR"
        ) from error


def _sample(labels: Tensor, count: int) -> Tensor:
    """Positions of `count` images, every class in proportion; 0 gives all. The draw depends on nothing else.

    Raises:
        ValueError: there are fewer, or not two for every class.
    """
    if count in (0, len(labels)):
        return torch.arange(len(labels))
    sizes = labels.bincount()
    if count > len(labels):
        raise ValueError(
            f"data.train_images must not exceed the {len(labels)} training images, got {count}; lower it, or 0 for all"
        )
    if count < 2 * len(sizes):
        raise ValueError(
            f"data.train_images must be two for each of {len(sizes)} classes at least, got {count}; raise it, or 0 for "
            "all"
        )
    kept = []
    for label, share in enumerate(_shares(sizes, count).tolist()):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator("train_images", label))
        kept.append(members[order[:share]])
    return torch.cat(kept).sort().values


def _shares(sizes: Tensor, count: int) -> Tensor:
    """Distribute `count` over classes of these sizes (C,) by largest remainders; returns (C,)."""
    exact = sizes.double() * count / sizes.sum()
    shares = exact.floor().long()
    most = (exact - shares).argsort(descending=True, stable=True)
    shares[most[: count - int(shares.sum())]] += 1
    return shares
