"""What can be known before a run starts but needs a library or the disk: the encoder exists, the data lies there."""

import dataclasses

from jepa_train.base.security import check_open
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.data.splits import identify
from jepa_train.evaluation.transfer import check_transfer


def preflight(config: TrainConfig) -> TrainConfig:
    """The config with data.fingerprint filled in, after checking encoder and datasets.

    Raises:
        ConfigError: an encoder that timm does not know or that cannot take the views' sizes; data that is missing,
            empty, or not what the fingerprint says; a password, token or key in a value.
        StorageError: what holds the data is away.
    """
    # Here, as timm takes 1.5 s to import, which --help and --status need not wait for.
    from jepa_train.model.network import feature_widths

    check_open(flatten(config))
    feature_widths(config)
    check_transfer(config.probe.transfer, config.data)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, fingerprint=identify(config.data)))
