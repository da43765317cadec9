"""Averaged networks: the mean over steps (EMA), LeJEPA's option of SWA, and the mean over epochs, torch's SWA."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from jepa_train.distributed.torch_private import AnyBatchNorm, lerp_
from jepa_train.model.device import schedule_tensor, write_schedule
from jepa_train.model.network import Network
from jepa_train.model.precision import autocast


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
        # the probes are shared: they learn on the averaged features and score those; the predictor is not called
        shared = network.predictor, network.probe, network.projector_probe
        self.network = copy.deepcopy(network, {id(part): part for part in shared})
        for part in (self.network.encoder, self.network.projector):
            part.requires_grad_(False)
        self.updates = 0
        self._decay = decay
        self._averaged, self._trained = _weights(self.network), _weights(network)
        self._newest = schedule_tensor([1.0], self._trained[0].device)  # weight of the next update

    def begin_step(self) -> None:
        """Host part of a step: count its update, and write the weight that update reads."""
        self.updates += 1
        write_schedule(self._newest, [(1 - self._decay) / (1 - self._decay**self.updates)])

    @torch.no_grad()
    def update(self) -> None:
        """Add the trained weights to the mean; call after every optimiser step. The same operations in each step."""
        lerp_(self._averaged, self._trained, self._newest[0])

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


class EpochAverage(AveragedModel):
    """Equal-weight mean of the weights after some epochs: torch.optim.swa_utils.AveragedModel with update_bn.

    It is evaluated, and takes no part in training: any method can have it. All of the network is averaged, its probes
    too, which have learnt on the trained network. Equal on all ranks.

    The averaged weights have never seen an image in training, so their batch norm has no statistics of its own. The
    trained network's belong to other weights (Izmailov et al. 2018, sec. 3.2). As in update_bn they are the plain mean
    over the batches of one pass over training images; unlike there, dropout and stochastic depth are off.

    Args:
        network: the trained network, on its device and in its memory format, with its batch norm converted.
    """

    def __init__(self, network: Network):
        super().__init__(network)
        self.requires_grad_(False)

    @property
    def network(self) -> Network:
        """The averaged network; before the first update, a copy of the network."""
        assert isinstance(self.module, Network)
        return self.module

    @property
    def updates(self) -> int:
        """Number of epochs in the mean."""
        return int(self.n_averaged)

    def update(self, network: Network, batches: Iterable[Tensor], precision: str) -> None:
        """Add the trained weights to the mean, and compute its batch-norm statistics.

        Args:
            batches: this rank's share (N, 3, h, w) of batches of training images, augmented.
            precision: of the config.
        """
        self.update_parameters(network)
        renew_batch_norm(self.network, batches, precision)


@torch.no_grad()
def renew_batch_norm(network: Network, batches: Iterable[Tensor], precision: str) -> None:
    """Make the running statistics of batch norm the plain mean over the batches' own. Leaves evaluation mode.

    torch.optim.swa_utils.update_bn has no form for several ranks: it sets momentum to None, for which batch norm reads
    its number of batches on the host.
    """
    norms = [module for module in network.modules() if isinstance(module, AnyBatchNorm)]
    network.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    for index, images in enumerate(batches):
        for norm in norms:
            norm.momentum = 1 / (index + 1)
        with autocast(images.device, precision):
            network.encode(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _weights(network: Network) -> list[Tensor]:
    return [*network.encoder.parameters(), *network.projector.parameters()]
