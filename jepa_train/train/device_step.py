"""Device part of a training step: all that is computed from its inputs, with the same operations in every step."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.config import TrainConfig
from jepa_train.data.augment import make_views
from jepa_train.data.base import Images
from jepa_train.distributed import collectives
from jepa_train.methods.base import Step
from jepa_train.model.ema import Average
from jepa_train.model.network import Network, Output
from jepa_train.model.optim import Optimizer
from jepa_train.model.precision import autocast
from jepa_train.train.inputs import StepInputs


class DeviceStep:
    """Batch, views, forward, loss, backward, optimiser, averages and sums of one step.

    Every call has the same operations, shapes and Python numbers: what changes from step to step is read from the
    inputs, and state is changed in place. On a GPU a call copies nothing to the device and reads nothing from it.

    Args:
        network: on its device, as its average and the optimiser.
        images: of training, on that device (Images.on).
        inputs: of the next step; the host part fills them before each call.
        share: this rank's part of the global batch.

    Attributes:
        z: (V, N, D) of the last call.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        network: Network,
        average: Average | None,
        optimizer: Optimizer,
        images: Images,
        inputs: StepInputs,
        share: slice,
    ) -> None:
        self._config, self._network, self._average, self._optimizer = config, network, average, optimizer
        self._images, self._inputs, self._share = images, inputs, share
        self._device = next(network.parameters()).device
        self._names: tuple[str, ...] = ()  # of the terms that the sums are of
        self._sums = torch.zeros(0, device=self._device)
        self.z = torch.empty(0)

    def __call__(self) -> None:
        """Take a step. If it fails, no gradient is left behind."""
        self._network.train()
        try:
            views, labels = self._views()
            output, center = self._forward(views)
            objective, terms = self._loss(output, labels, center)
            self._update(objective)
        except BaseException:
            self._network.zero_grad(set_to_none=True)
            raise
        self._add(terms)
        self.z = output.z.detach()

    @property
    def sums(self) -> dict[str, Tensor]:
        """Sums of the terms over the steps since clear_sums, each a scalar on the device."""
        return dict(zip(self._names, self._sums.unbind(), strict=True))

    def load_sums(self, sums: Mapping[str, Tensor]) -> None:
        """Restore the sums."""
        self._names = tuple(sums)
        values = [value.to(self._device) for value in sums.values()]
        self._sums = torch.stack(values) if values else torch.zeros(0, device=self._device)

    def clear_sums(self) -> None:
        """Set the sums to 0, in place."""
        self._sums.zero_()

    def _views(self) -> tuple[list[Tensor], Tensor]:
        """Views of each resolution, and the labels of the images."""
        config, inputs = self._config, self._inputs
        pixels, labels = self._images.batch(inputs.positions)
        local = self._images.local
        views = make_views(
            pixels,
            config.views,
            seed=config.seed,
            step=inputs.number,
            batch=self._share,
            global_batch=config.global_batch,
            for_local=None if local is None else local.batch(inputs.positions)[0],
        )
        return views, labels

    def _forward(self, views: list[Tensor]) -> tuple[Output, Tensor | None]:
        """Output of the network and, where there is an averaged network, the center that it gives."""
        averaged, center = None, None
        with autocast(self._device, self._config.precision):
            if self._average is not None:
                self._average.train()
                averaged = self._average.embed(views[:1])  # of the global views
                center = collectives.at_least_fp32(averaged[1]).mean(0)
            return self._network(views, averaged), center

    def _loss(self, output: Output, labels: Tensor, center: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        with collectives.equal_batches():
            return training_loss(self._config, output, labels, self._inputs.number, center)

    def _update(self, objective: Tensor) -> None:
        self._optimizer.step(objective)
        if self._average is not None:
            self._average.update()

    def _add(self, terms: Mapping[str, Tensor]) -> None:
        if not self._names:
            self.load_sums({name: torch.zeros_like(value) for name, value in terms.items()})
        assert set(self._names) == set(terms), f"terms of one step {set(self._names)}, of another one {set(terms)}"
        self._sums.add_(torch.stack([terms[name] for name in self._names]))


def training_loss(
    config: TrainConfig, output: Output, labels: Tensor, step: int, center: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one step: the method's objective plus the cross-entropies of the detached online probes.

    Args:
        labels: (N,), of this rank's images.
        center: (N, D), of each image, from the averaged network if there is one.

    Returns:
        The scalar to call backward on, and the detached terms to report; both of the global batch.
    """
    predicted = output.predicted if config.model.predictor else None
    loss, terms = config.method(output.z, Step(config.views.num_global, step, config.seed, center, predicted))
    labels = labels.repeat(len(output.probe_logits))  # (views that the probes see * N,)
    probes = sum(
        functional.cross_entropy(logits.flatten(0, 1).float(), labels)
        for logits in (output.probe_logits, output.projector_logits)
    )
    return loss + probes, {"loss": loss.detach(), **terms}
