"""Device and memory format of the network, and the precision that PyTorch gets wrong on one."""

import torch
from torch import Tensor, nn

from jepa_train.base.errors import ConfigError
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


@torch.no_grad()
def check_bf16_on_cpu(encoder: nn.Module, config: TrainConfig) -> None:
    """Refuse convolutions over 1 px in bf16: oneDNN (3.12) leaves gradients of taps that meet padding alone unset.

    Raises:
        ConfigError: naming the views' size.
    """

    def look(module: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        kernel, stride = max(module.kernel_size), max(module.stride)
        if min(inputs[0].shape[-2:]) == 1 and kernel > 1 and (kernel > 3 or stride > 1):  # 3x3, stride 1, is right
            raise ConfigError(
                f"precision must be fp32 on a CPU where {config.model.encoder} shrinks views to 1 px, got bf16 with "
                f"views of {size} px: PyTorch's gradient of such a convolution is wrong; set precision=fp32"
            )

    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_pre_hook(look) for module in convolutions]
    encoder.eval()
    for size in {config.views.global_size} | ({config.views.local_size} if config.views.num_local else set()):
        encoder(next(encoder.parameters()).new_zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
