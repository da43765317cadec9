"""Transfer sets: other datasets on which a frozen encoder is probed at the end; config.probe.transfer lists them."""

from typing import Any

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.config.names import transfer_sets
from jepa_train.data import DATASETS
from jepa_train.data.files.download import sibling_path
from jepa_train.data.splits import identify
from jepa_train.storage.storage import StorageError

SHOTS = (1, 10)  # per class, besides all images: LeJEPA's Table 2, Rectified LpJEPA's Tables 3 to 8


def transfer_data(name: str, folder: str, data: DataConfig) -> DataConfig:
    """Data config of a transfer set: data's, with the folder or, without one, the name beside data.path.

    It uses the whole training split, val carved out of it as for data. A folder has data's pixel format.
    """
    fields = ["download", "image_size", "val_frac", "on_corrupt", "eval_fov"]
    fields += [] if name in DATASETS else ["fit", "channels", "bits"]
    kept: dict[str, Any] = {field: getattr(data, field) for field in fields}
    dataset = name if name in DATASETS else "image_folder"
    return DataConfig(name=dataset, path=folder or sibling_path(data.path, name), **kept)


def check_transfer(text: str, data: DataConfig) -> None:
    """Check that the images of all transfer sets exist. Cheap: nothing is decoded.

    Raises:
        ConfigError, StorageError: as identify does for data.path.
    """
    for name, folder in transfer_sets(text).items():
        try:
            found = transfer_data(name, folder, data)
            if found.channels != data.channels:
                rule = f"data.path must have images of data.channels={data.channels}, as those trained on"
                raise ConfigError(f"{rule}, got {found.channels} channels; leave the data set out")
            if not identify(found)[1].has_test:
                rule = f"data.path must hold a test split, got {found.path!r}"
                raise ConfigError(f"{rule}; add test/, or leave the data set out")
        except (ConfigError, StorageError) as error:
            message = str(error).replace("data.path=DIR", f"{name}=DIR in probe.transfer")
            raise type(error)(message.replace("data.path", f"probe.transfer's {name}")) from error
