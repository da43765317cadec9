"""EMA / SWA of encoder and projector: the averaged network, LeJEPA's option of SWA."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from jepa_train.distributed.torch_private import AnyBatchNorm, lerp_
from jepa_train.model.network import Network


class Average:
    """Mean of the weights of encoder and projector after steps 1 ... n, with weight decay^(n - i) for step i.

    Normalised by the sum of the weights, which is Adam's bias correction: the initial weights do not contribute, there
    is no warm-up to choose, and towards decay = 1 it is the plain mean of stochastic weight averaging. LeJEPA's Table 4
    uses it for the encoder that gives the center, without stating decay or warm-up.

    Batch-norm buffers are not averaged: they follow the averaged network's own forward passes. No gradient reaches it.
    Equal on all ranks if the network is, given global batch norm (convert_batch_norm, before or after).

    Args:
        network: the trained network, on its device and in its memory format.
        decay: in (0, 1), per step.
    """

    def __init__(self, network: Network, decay: float):
        assert 0 < decay < 1, decay
        self.network = Network(
            encoder=copy.deepcopy(network.encoder).requires_grad_(False),
            projector=copy.deepcopy(network.projector).requires_grad_(False),
            predictor=network.predictor,  # shared, and not called
            probe=network.probe,  # the probes are shared: they learn on the averaged features and score those
            projector_probe=network.projector_probe,
            probed=network.probed,
        )
        self.updates = 0
        self._decay = decay
        self._averaged, self._trained = _weights(self.network), _weights(network)

    @torch.no_grad()
    def update(self) -> None:
        """Add the trained weights to the mean; call after every optimiser step. Needs no synchronisation."""
        self.updates += 1
        newest = (1 - self._decay) / (1 - self._decay**self.updates)
        lerp_(self._averaged, self._trained, newest)

    def train(self) -> None:
        """Set the mode for embed: batch norm in training mode, dropout and stochastic depth off."""
        self.network.eval()
        for module in self.network.modules():
            if isinstance(module, AnyBatchNorm):
                module.train()

    @torch.no_grad()
    def embed(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features (V, N, P) and z (V, N, D) of the global views, as Network.embed; z.mean(0) is the center."""
        return self.network.embed(views)

    def state_dict(self) -> dict[str, Any]:
        """State without the probes, which the trained network's state has."""
        parts = {"encoder": self.network.encoder.state_dict(), "projector": self.network.projector.state_dict()}
        return parts | {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state_dict."""
        self.network.encoder.load_state_dict(state["encoder"])
        self.network.projector.load_state_dict(state["projector"])
        self.updates = state["updates"]


def _weights(network: Network) -> list[Tensor]:
    return [*network.encoder.parameters(), *network.projector.parameters()]
