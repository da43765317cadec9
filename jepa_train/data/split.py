"""The images of a config: train, val carved out of it, test."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_train.data import DATASETS, Splits
from jepa_train.data.base import stratified

if TYPE_CHECKING:
    from jepa_train.config import DataConfig  # config imports DATASETS: at run time nothing below imports config


@functools.lru_cache(maxsize=2)  # a worker runs many cells, mostly on the same images
def load_splits(config: "DataConfig") -> Splits:
    """The images of a config. Val depends on val_frac and on no seed: every run of a dataset has the same.

    The result is shared by all callers of this process: read it, never write into it.

    Raises:
        ValueError: the data is missing or malformed, or is not what config.fingerprint names.
    """
    dataset, path = DATASETS[config.name], Path(config.path).expanduser()
    if config.fingerprint and (found := dataset.identify(path, config.download)) != config.fingerprint:
        raise ValueError(
            f"data.fingerprint must name what data.path holds, got {config.fingerprint!r}, but {str(path)!r} holds "
            f"{found!r}; restore the images, or leave data.fingerprint out to use them as they are"
        )
    train, test, classes = dataset.load(path, config.download, config.image_size)
    rest, val = stratified(train.labels, config.val_frac, purpose="val")
    return Splits(train=train.take(rest), val=train.take(val), test=test, classes=classes)
