"""Heads on an encoder: the MLP projector, the predictor, the online linear probes."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from jepa_train.config import ModelConfig
from jepa_train.methods import Activation


def build_projector(num_features: int, config: ModelConfig, *, output_activation: Activation) -> nn.Sequential:
    """MLP (N, E) -> (N, D): Linear to embed_dim if set, Linear-BN-ReLU for all layers but the last, Linear, and the
    output activation; no BN if config.projector_norm is "none". With 0 layers only embed_dim's Linear and the output
    activation: D is z_width."""
    layers: list[nn.Module] = [nn.Linear(num_features, config.embed_dim)] if config.embed_dim else []
    width = config.embed_dim or num_features
    for _ in range(config.projector_layers - 1):
        layers += _hidden_layer(width, config.projector_hidden, norm=config.projector_norm == "batch")
        width = config.projector_hidden
    if config.projector_layers:
        layers.append(nn.Linear(width, config.projector_dim))
    if output_activation != "none":  # not in place: methods and metrics read the sign pattern of z
        layers.append(nn.ReLU() if output_activation == "relu" else RepReLU())
    return nn.Sequential(*layers)


def z_width(num_features: int, config: ModelConfig) -> int:
    """D, the dimension of z, of an encoder whose pooled output has num_features."""
    return config.projector_dim if config.projector_layers else config.embed_dim or num_features


class RepReLU(nn.Module):
    """ReLU with the gradient of GELU, so that units that are always 0 can recover (Wang et al. 2024, NCL)."""

    def forward(self, x: Tensor) -> Tensor:
        """max(x, 0), with exact zeros; any shape."""
        smooth = functional.gelu(x)
        return functional.relu(x).detach() + (smooth - smooth.detach())


def build_predictor(width: int, config: ModelConfig) -> nn.Module:
    """Predictor (N, D) -> (N, D): Linear-BN-ReLU and a Linear, or the identity. LeJEPA prints no architecture.

    Args:
        width: D.
    """
    if not config.predictor:
        return nn.Identity()
    hidden = config.projector_hidden
    return nn.Sequential(*_hidden_layer(width, hidden, norm=True), nn.Linear(hidden, width))


def _hidden_layer(inputs: int, width: int, *, norm: bool) -> list[nn.Module]:
    # No bias before a batch norm: its gradient is zero up to rounding, which AdamW scales up to steps of size lr.
    linear = nn.Linear(inputs, width, bias=not norm)
    return [linear, *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU(inplace=True)]


def build_probe(width: int, num_classes: int, *, norm: Literal["layer", "none"]) -> nn.Sequential:
    """Linear probe (N, width) -> (N, num_classes), after a LayerNorm if asked for; empty for no classes.

    LayerNorm, as in LeJEPA's README, makes the learning rate independent of the scale of the input. Rectified LpJEPA
    probes raw features (solo/methods/base.py).
    """
    if not num_classes:
        return nn.Sequential()
    linear = nn.Linear(width, num_classes)
    return nn.Sequential(nn.LayerNorm(width), linear) if norm == "layer" else nn.Sequential(linear)
