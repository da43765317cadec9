"""Other data sets on which a frozen encoder is judged at the end: config.probe.transfer lists them."""

import dataclasses
from typing import TYPE_CHECKING

from jepa_train.base.errors import ConfigError, nearest, require
from jepa_train.data import DATASETS
from jepa_train.data.download import beside
from jepa_train.data.splits import identify
from jepa_train.storage.local import StorageError

if TYPE_CHECKING:
    from jepa_train.config import DataConfig  # config checks probe.transfer: at run time nothing here imports config

SHOTS = (1, 10)  # per class, besides all images: LeJEPA's Table 2, Rectified LpJEPA's Tables 3 to 8


def transfer_sets(text: str) -> dict[str, str]:
    """{name: folder} of a comma-separated list; the folder is "" where none is given. "" has none.

    "cifar100,dtd=FOLDER": a name alone is one of DATASETS; with a folder it is that, or any name for a folder of images
    (train/<class>/*, test/<class>/*). DTD, Flowers-102, Food-101, Pets and the like come as such folders.

    Raises:
        ValueError: an unknown name without a folder, a name without letters or given twice.
    """
    found: dict[str, str] = {}
    for word in text.split(",") if text.strip() else ():
        name, equals, folder = (part.strip() for part in word.partition("="))
        alone = sorted(DATASETS.keys() - {"image_folder"})
        known = f"transfer must list known data sets, or NAME=FOLDER of images, got {word.strip()!r}"
        require(bool(folder) if equals else name in alone, f"{known}{nearest(name, alone)}")
        require(name.replace("_", "").replace("-", "").isalnum(), f"{known}; a name has letters, digits, - and _")
        require(name not in found, f"transfer must name each data set once, got {name!r} twice; drop one")
        found[name] = folder
    return found


def transfer_data(name: str, folder: str, data: "DataConfig") -> "DataConfig":
    """Where the images of a transfer set lie: at the size of data's, in the folder, or beside data.path under its name.

    The whole training split is meant, and val is carved out of it as out of data's.
    """
    path = folder or beside(data.path, name)
    dataset = name if name in DATASETS else "image_folder"
    return dataclasses.replace(data, name=dataset, path=path, fingerprint="", train_images=0)


def check_transfer(text: str, data: "DataConfig") -> None:
    """Look for the images of all transfer sets. Cheap: nothing is decoded.

    Raises:
        ConfigError, StorageError: as of data.path, see identify.
    """
    for name, folder in transfer_sets(text).items():
        try:
            identify(transfer_data(name, folder, data))
        except (ConfigError, StorageError) as error:
            told = str(error).replace("data.path=DIR", f"{name}=DIR in probe.transfer")
            raise type(error)(told.replace("data.path", f"probe.transfer's {name}")) from error
