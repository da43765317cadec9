"""The averaged network: an exponential moving average of encoder and projector, LeJEPA's option of SWA."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from jepa_train.distributed.torch_private import AnyBatchNorm, lerp_
from jepa_train.model.network import Network


class Average:
    """The mean of the encoder's and projector's weights after each step n = 1, 2, ..., step i weighing decay^(n - i).

    Normalised over the steps there were, which is Adam's bias correction: the initial weights have no part in it, there
    is no warm-up to choose, and towards decay = 1 it is the plain mean of stochastic weight averaging. LeJEPA's Table 4
    uses it for the encoder that gives the center; of decay and warm-up it says nothing.

    Batch-norm buffers are no mean: they follow the averaged network's own forward passes. No gradient reaches it. It
    is the same on every rank where the network is, given global batch norm (convert_batch_norm, before or after).

    Args:
        network: stays the one that is trained; on its device, in its memory format. Its optimiser may come later.
        decay: in (0, 1), per step.
    """

    def __init__(self, network: Network, decay: float):
        assert 0 < decay < 1, decay
        self.network = Network(
            encoder=copy.deepcopy(network.encoder).requires_grad_(False),
            projector=copy.deepcopy(network.projector).requires_grad_(False),
            predictor=network.predictor,  # shared, and not asked
            probe=network.probe,  # the probes are shared: they learn on the averaged features and judge those
            projector_probe=network.projector_probe,
        )
        self.updates = 0
        self._decay = decay
        self._averaged, self._trained = _weights(self.network), _weights(network)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the trained weights; call after every optimiser step. No synchronisation with the device."""
        self.updates += 1
        newest = (1 - self._decay) / (1 - self._decay**self.updates)
        lerp_(self._averaged, self._trained, newest)

    def train(self) -> None:
        """Ready for embed, after evaluation or at the start: batch norm by the batch, but nothing dropped at random."""
        self.network.eval()
        for module in self.network.modules():
            if isinstance(module, AnyBatchNorm):
                module.train()

    @torch.no_grad()
    def embed(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features (V, N, P) and z (V, N, D) of views as in Network.forward, here the global ones: z.mean(0) is mu."""
        return self.network.embed(views)

    def state_dict(self) -> dict[str, Any]:
        """All but the probes, which are in the trained network's."""
        parts = {"encoder": self.network.encoder.state_dict(), "projector": self.network.projector.state_dict()}
        return parts | {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the average of that state was."""
        self.network.encoder.load_state_dict(state["encoder"])
        self.network.projector.load_state_dict(state["projector"])
        self.updates = state["updates"]


def _weights(network: Network) -> list[Tensor]:
    return [*network.encoder.parameters(), *network.projector.parameters()]
