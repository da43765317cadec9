"""Splits of a config's data set: train, val (taken from train) and test; and its fingerprint."""

import functools

import torch
from torch import Tensor

from jepa_train.base.errors import ConfigError, config_errors
from jepa_train.base.seeds import generator
from jepa_train.config import DataConfig
from jepa_train.data import DATASETS, Images, Splits
from jepa_train.data.base import stratified_split
from jepa_train.data.download import local_folder
from jepa_train.storage.storage import StorageError


@config_errors()
def identify(config: DataConfig) -> str:
    """The fingerprint of the data, "" for a data set that its name identifies. Cheap: nothing is decoded.

    Raises:
        ConfigError: the data is missing or malformed, or is not what config.fingerprint names.
        StorageError: its storage does not answer.
    """
    try:
        found = DATASETS[config.name].identify(local_folder(config.path, download=config.download), config.download)
    except StorageError:
        raise
    except (OSError, RuntimeError) as error:  # permission denied, or ~ of an unknown user
        raise ConfigError(
            f"data.path must be a folder that can be read, got {config.path!r} ({error}); set data.path=DIR"
        ) from error
    if config.fingerprint and not found:
        raise ConfigError(
            f"data.fingerprint must be left out for {config.name}, which has none, got {config.fingerprint!r}"
        )
    if config.fingerprint not in ("", found):
        raise ConfigError(
            f"data.fingerprint must name what data.path holds, got {config.fingerprint!r}, but {config.path!r} holds "
            f"{found!r}; restore the images, or leave data.fingerprint out to use them as they are"
        )
    return found


@functools.lru_cache(maxsize=2)  # a worker runs many cells, mostly on the same images
@config_errors()  # for example a corrupt image, which identify does not see
def load_splits(config: DataConfig) -> Splits:
    """The splits of a config. Val depends on val_frac and on no seed: every run of a data set has the same.

    All callers of this process share the result; never write into it.

    Raises:
        ConfigError: the data is missing or malformed, or is not what config.fingerprint names.
        StorageError: its storage does not answer.
    """
    if config.fingerprint:
        identify(config)
    path = local_folder(config.path, download=config.download)
    source = DATASETS[config.name].load(path, config.download, config.image_size, config.on_corrupt == "skip")
    train = _part(source.train, config.train_images)
    rest, val = stratified_split(train.labels, config.val_frac, purpose="val")
    return Splits(
        train=train.take(rest), val=train.take(val), test=source.test, classes=source.classes, skipped=source.skipped
    )


def _part(images: Images, count: int) -> Images:
    """Draw `count` training images, every class in proportion; 0 gives all. The draw depends on nothing else.

    Raises:
        ValueError: there are fewer, or not two for every class.
    """
    if count in (0, len(images)):
        return images
    sizes = images.labels.bincount()
    if count > len(images):
        raise ValueError(
            f"data.train_images must not exceed the {len(images)} training images, got {count}; lower it, or 0 for all"
        )
    if count < 2 * len(sizes):
        raise ValueError(
            f"data.train_images must be two for each of {len(sizes)} classes at least, got {count}; raise it, or 0 for "
            "all"
        )
    kept = []
    for label, share in enumerate(_shares(sizes, count).tolist()):
        members = (images.labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator("train_images", label))
        kept.append(members[order[:share]])
    return images.take(torch.cat(kept).sort().values)


def _shares(sizes: Tensor, count: int) -> Tensor:
    """Distribute `count` over classes of these sizes (C,) by largest remainders; returns (C,)."""
    exact = sizes.double() * count / sizes.sum()
    shares = exact.floor().long()
    most = (exact - shares).argsort(descending=True, stable=True)
    shares[most[: count - int(shares.sum())]] += 1
    return shares
