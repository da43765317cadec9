"""Other data sets on which a frozen encoder is judged at the end: config.probe.transfer lists them."""

import dataclasses

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.config.names import transfer_sets
from jepa_train.data import DATASETS
from jepa_train.data.download import sibling_path
from jepa_train.data.splits import identify
from jepa_train.storage.storage import StorageError

SHOTS = (1, 10)  # per class, besides all images: LeJEPA's Table 2, Rectified LpJEPA's Tables 3 to 8


def transfer_data(name: str, folder: str, data: DataConfig) -> DataConfig:
    """Where the images of a transfer set lie: at the size of data's, in the folder, or beside data.path under its name.

    The whole training split is meant, and val is carved out of it as out of data's.
    """
    path = folder or sibling_path(data.path, name)
    dataset = name if name in DATASETS else "image_folder"
    return dataclasses.replace(data, name=dataset, path=path, fingerprint="", train_images=0)


def check_transfer(text: str, data: DataConfig) -> None:
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
