"""Checks before a run that need a library or the disk: the encoder and the data exist, and the batch fits the data."""

import dataclasses
from dataclasses import dataclass

from jepa_train.base.errors import ConfigError
from jepa_train.base.security import check_open
from jepa_train.config import DataConfig, TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.config.names import protocol_names
from jepa_train.data import DATASETS
from jepa_train.data.splits import class_sizes, identify, read_images
from jepa_train.evaluation.glossary import ON_VAL_BY_PROTOCOL
from jepa_train.evaluation.transfer import check_transfer


@dataclass(frozen=True, kw_only=True)
class CheckedData:
    """The data and the encoder of a config after its checks.

    Args:
        config: with fingerprint and content filled in.
        class_sizes: training images of each class, without those of val; () if they are not known.
        encoder_hash: model.encoder_hash.
        weights_id: model.weights_id.
    """

    config: DataConfig
    class_sizes: tuple[int, ...] = ()
    encoder_hash: str = ""
    weights_id: str = ""

    def fill_in(self, config: TrainConfig) -> TrainConfig:
        """The config with the identities of data, encoder and initial weights."""
        present = config.model.encoder_hash, config.model.weights_id
        if (config.data, *present) == (self.config, self.encoder_hash, self.weights_id):
            return config
        model = dataclasses.replace(config.model, encoder_hash=self.encoder_hash, weights_id=self.weights_id)
        return dataclasses.replace(config, data=self.config, model=model)


def preflight(config: TrainConfig, *, read: bool = False) -> TrainConfig:
    """Check a config, and return it with the identities of its data, encoder and initial weights filled in.

    Args:
        read: read the images if their content is not known on this machine, so that data.content is certain.

    Raises:
        ConfigError, StorageError: as check_data and check_batch.
    """
    checked = check_data(config, read=read)
    check_batch(config, sum(checked.class_sizes))
    return checked.fill_in(config)


def check_data(config: TrainConfig, *, read: bool = False) -> CheckedData:
    """Check encoder, initial weights and datasets.

    Args:
        read: see preflight.

    Raises:
        ConfigError: as check_protocols; an encoder that is not there or that cannot take the views' sizes; weights that
            are not there or do not fit it; data that is missing, empty, or does not match the fingerprint; too few
            images for the splits; a password, token or key in a value.
        StorageError: the storage of the data or the weights does not respond.
    """
    # timm takes 1.5 s to import, too long for --help and --status
    from jepa_train.model.network import feature_widths, weights_report
    from jepa_train.model.own_encoder import source_hash
    from jepa_train.model.weights import planned_weights

    check_open(flatten(config))
    feature_widths(config)
    check_protocols(config)
    check_transfer(config.probe.transfer, config.data)
    data, inventory = read_images(config.data, keep=True) if read else identify(config.data)
    sizes = class_sizes(data, inventory)
    checked = CheckedData(
        config=data,
        class_sizes=sizes,
        encoder_hash=source_hash(config.model.encoder),
        weights_id=planned_weights(config.model)[0],
    )
    weights_report(checked.fill_in(config).model, config.views.global_size, config.data.channels)
    return checked


def check_protocols(config: TrainConfig) -> None:
    """Check that no protocol needs labels that the data does not have.

    Raises:
        ConfigError: one does.
    """
    names = [name for name in protocol_names(config.probe.protocols) if ON_VAL_BY_PROTOCOL[name]]
    if names and not DATASETS[config.data.name].labelled:
        raise ConfigError(
            f"probe.protocols must name no protocol that needs labels for {config.data.name}, got {', '.join(names)}; "
            "set probe.protocols= (empty), and name a labelled dataset in probe.transfer, which is probed at the end"
        )


def check_batch(config: TrainConfig, num_images: int) -> None:
    """Check that the training images are at least one global batch.

    Args:
        num_images: without those of val; 0 if the number is not known.

    Raises:
        ConfigError: they are fewer.
    """
    if 0 < num_images < config.global_batch:
        raise ConfigError(
            f"global_batch must not exceed the {num_images} training images of {config.data.name}, "
            f"got {config.global_batch}; lower it"
        )
