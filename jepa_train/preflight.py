"""What can be known before a run starts but needs a library or the disk: the encoder exists, the data lies there."""

import dataclasses
from pathlib import Path

from jepa_train.checks import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.data import DATASETS
from jepa_train.models import num_features


def preflight(config: TrainConfig) -> TrainConfig:
    """The config with data.fingerprint filled in, after checking encoder and dataset.

    Raises:
        ConfigError: an encoder that timm does not know or that cannot take the views' sizes; data that is missing,
            empty, or not what the fingerprint says.
    """
    data = config.data
    try:
        num_features(config)
        fingerprint = DATASETS[data.name].identify(Path(data.path).expanduser(), data.download)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if data.fingerprint not in ("", fingerprint):
        raise ConfigError(
            f"data.fingerprint must name the images under data.path={data.path}, got {data.fingerprint}, found "
            f"{fingerprint}; the folder has changed: leave data.fingerprint out to use it as it is"
        )
    return dataclasses.replace(config, data=dataclasses.replace(data, fingerprint=fingerprint))
