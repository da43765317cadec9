"""Checks before a run that need a library or the disk: the encoder and the data exist."""

import dataclasses

from jepa_train.base.security import check_open
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.data.splits import identify, read_images
from jepa_train.evaluation.transfer import check_transfer


def preflight(config: TrainConfig, *, read: bool = False) -> TrainConfig:
    """Check encoder and datasets, and return the config with data.fingerprint and data.content filled in.

    Args:
        read: read the images if their content is not known on this machine, so that data.content is certain.

    Raises:
        ConfigError: an encoder that timm does not know or that cannot take the views' sizes; data that is missing,
            empty, or does not match the fingerprint; a password, token or key in a value.
        StorageError: the storage of the data does not respond.
    """
    # timm takes 1.5 s to import, too long for --help and --status
    from jepa_train.model.network import feature_widths

    check_open(flatten(config))
    feature_widths(config)
    check_transfer(config.probe.transfer, config.data)
    data = (read_images(config.data, keep=True) if read else identify(config.data))[0]
    return dataclasses.replace(config, data=data)
