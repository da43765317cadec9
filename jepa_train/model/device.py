"""Device and memory format of the network."""

import torch

from jepa_train.config import TrainConfig
from jepa_train.model.network import Network


def training_device() -> torch.device:
    """This process's GPU, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def to_training_device(network: Network, config: TrainConfig) -> Network:
    """The network on this process's device, in the config's memory format."""
    network.to(training_device())
    if config.model.channels_last:  # convolutions: 1.3 times as fast on a CPU, more on a GPU
        network.to(memory_format=torch.channels_last)
    return network
