"""Projector, predictor and RepReLU against the computation of their layers.

Run: python -m pytest tests/unit/model/test_heads.py
"""

import math

import pytest
import torch
from torch import Tensor, nn

from jepa_train.config import ModelConfig
from jepa_train.methods import Activation
from jepa_train.model.heads import RepReLU, build_predictor, build_projector, z_width


def normalised(x: Tensor) -> Tensor:
    """Batch norm of (N, D) by the batch."""
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()


def linears_of(module: nn.Module) -> list[nn.Linear]:
    """The Linears, in order."""
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("embed_dim", [0, 5])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_projector_is_what_its_layers_compute(layers: int, embed_dim: int, norm: str) -> None:
    torch.manual_seed(0)
    sizes = {"projector_layers": layers, "projector_hidden": 10, "projector_dim": 4}
    config = ModelConfig(**sizes, embed_dim=embed_dim, projector_norm=norm)
    projector = build_projector(6, config, output_activation="relu").train()
    x = hidden = torch.randn(32, 6)
    linears = linears_of(projector)
    if embed_dim:
        hidden = linears[0](hidden)
        assert hidden.shape == (32, embed_dim)
        del linears[0]
    assert len(linears) == layers
    for linear in linears[:-1]:
        assert (linear.bias is None) == (norm == "batch")
        hidden = (normalised(hidden @ linear.weight.T) if norm == "batch" else linear(hidden)).clamp(min=0)
    torch.testing.assert_close(projector(x), linears[-1](hidden).clamp(min=0))


@pytest.mark.parametrize("embed_dim", [0, 5])
@pytest.mark.parametrize("activation", ["none", "relu", "rep_relu"])
def test_without_a_projector_only_the_embedding_layer_and_the_output_activation_remain(
    embed_dim: int, activation: Activation
) -> None:
    config = ModelConfig(projector_layers=0, embed_dim=embed_dim)
    projector = build_projector(6, config, output_activation=activation)
    x = torch.randn(32, 6)
    expected = linears_of(projector)[0](x) if embed_dim else x
    torch.testing.assert_close(projector(x), expected if activation == "none" else expected.clamp(min=0))
    assert projector(x).shape[1] == z_width(6, config)


def test_predictor_is_a_hidden_layer_and_a_linear_or_nothing() -> None:
    torch.manual_seed(0)
    z = torch.randn(32, 4)
    assert build_predictor(4, ModelConfig())(z) is z
    predictor = build_predictor(4, ModelConfig(projector_hidden=10, predictor=True)).train()
    first, last = linears_of(predictor)
    torch.testing.assert_close(predictor(z), last(normalised(z @ first.weight.T).clamp(min=0)))


def test_rep_relu_is_relu_forward_and_gelu_backward() -> None:
    x = torch.linspace(-3, 3, 61, dtype=torch.float64).requires_grad_()
    found = RepReLU()(x)
    assert torch.equal(found, x.detach().clamp(min=0))
    found.sum().backward()
    normal = torch.tensor([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()], dtype=torch.float64)
    density = (-x.detach().square() / 2).exp() / math.sqrt(2 * math.pi)
    torch.testing.assert_close(x.grad, normal + x.detach() * density)  # (x Phi(x))'
