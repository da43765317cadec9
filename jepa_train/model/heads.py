"""What stands on an encoder: the MLP projector, the predictor, the online linear probes."""

from torch import Tensor, nn
from torch.nn import functional

from jepa_train.config import ModelConfig
from jepa_train.methods import Activation


def build_projector(num_features: int, config: ModelConfig, *, output_activation: Activation) -> nn.Sequential:
    """(N, E) -> (N, D): a Linear to embed_dim if there is one, then Linear-BN-ReLU for all layers but the last, which
    is a Linear, then the output activation."""
    layers: list[nn.Module] = [nn.Linear(num_features, config.embed_dim)] if config.embed_dim else []
    width = config.embed_dim or num_features
    for _ in range(config.projector_layers - 1):
        layers += _hidden_layer(width, config.projector_hidden)
        width = config.projector_hidden
    layers.append(nn.Linear(width, config.projector_dim))
    if output_activation != "none":  # not in place: the sign pattern of z is what methods and metrics read
        layers.append(nn.ReLU() if output_activation == "relu" else RepReLU())
    return nn.Sequential(*layers)


class RepReLU(nn.Module):
    """ReLU with the gradient of GELU, not zero below zero: what is always 0 can come back (Wang et al. 2024, NCL)."""

    def forward(self, x: Tensor) -> Tensor:
        """max(x, 0), exactly 0 where it is; any shape."""
        smooth = functional.gelu(x)
        return functional.relu(x).detach() + (smooth - smooth.detach())


def build_predictor(config: ModelConfig) -> nn.Module:
    """(N, D) -> (N, D): Linear-BN-ReLU and a Linear, or the identity. LeJEPA's Table 4 prints no architecture."""
    if not config.predictor:
        return nn.Identity()
    hidden = config.projector_hidden
    return nn.Sequential(*_hidden_layer(config.projector_dim, hidden), nn.Linear(hidden, config.projector_dim))


def _hidden_layer(inputs: int, width: int) -> list[nn.Module]:
    # No bias before a batch norm: its gradient is zero up to rounding, which AdamW scales up to steps of size lr.
    return [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]


def build_probe(width: int, num_classes: int) -> nn.Sequential:
    """An online linear probe. LayerNorm, as in LeJEPA's recipe: probe.lr means the same at every scale of the input."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))
