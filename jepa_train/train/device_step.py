"""Device part of a training step: all that is computed from its inputs, with the same operations in every step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.base.device import has_own_streams
from jepa_train.config import TrainConfig
from jepa_train.data.augment import apply_views
from jepa_train.distributed import collectives
from jepa_train.methods.base import Step
from jepa_train.model.ema import Average
from jepa_train.model.network import Network, Output
from jepa_train.model.optim import Optimizer
from jepa_train.model.own_encoder import is_dotted
from jepa_train.model.precision import autocast, input_dtype
from jepa_train.train.inputs import StepInputs


class DeviceStep:
    """Batch, views, forward, loss, backward, optimiser, averages and sums of one step.

    Every call has the same operations, shapes and Python numbers: what changes from step to step is read from the
    inputs, and state is changed in place. On a GPU a call copies nothing to the device and reads nothing from it.

    Args:
        network: on its device, as its average and the optimiser.
        labels: of all training images, on that device; None for images without labels.
        inputs: of the next step; the host part sends them before each call.

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
        labels: Tensor | None,
        inputs: StepInputs,
    ) -> None:
        self._config, self._network, self._average, self._optimizer = config, network, average, optimizer
        self._labels, self._inputs = labels, inputs
        self._device = next(network.parameters()).device
        self._on_gpu = has_own_streams(self._device)
        # a user's encoder may start with an operation that autocast leaves alone
        casts = self._on_gpu and not is_dotted(config.model.encoder)
        self._dtype = input_dtype(config.precision) if casts else torch.float32
        self._names: tuple[str, ...] = ()  # of the terms that the sums are of
        self._sums = torch.zeros(0, device=self._device)
        self._step = _WatchedStep(config.views.num_global, 0, config.seed)
        self.z = torch.empty(0)

    def __call__(self) -> None:
        """Take a step. If it fails, no gradient is left behind."""
        if not self._network.training:  # after an evaluation
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

    def obstacle(self) -> str:
        """Reason why a CUDA graph of the last call would be wrong in the next step; "" if it would not."""
        if not self._step.number_was_read:
            return ""
        return f"method {self._config.method.name} reads Step.number, which a graph would freeze; use Step.draws"

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

    def _views(self) -> tuple[list[Tensor], Tensor | None]:
        """Views of each resolution, and the labels of the images, if any."""
        views = apply_views(
            self._inputs.sources(),
            self._inputs.fields,
            self._config.views,
            dtype=self._dtype,
            channels_last=self._on_gpu and self._config.model.channels_last,
        )
        labels = self._labels
        return views, None if labels is None else labels.index_select(0, self._inputs.positions)

    def _forward(self, views: list[Tensor]) -> tuple[Output, Tensor | None]:
        """Output of the network and, where there is an averaged network, the center that it gives."""
        averaged, center = None, None
        with autocast(self._device, self._config.precision):
            if self._average is not None:
                self._average.train()
                averaged = self._average.embed(views[:1])  # of the global views
                center = collectives.at_least_fp32(averaged[1]).mean(0)
            return self._network(views, averaged), center

    def _loss(self, output: Output, labels: Tensor | None, center: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        config, inputs = self._config, self._inputs
        predicted = output.predicted if config.model.predictor else None
        self._step = step = _WatchedStep(
            config.views.num_global, inputs.number, config.seed, center, predicted, inputs.count
        )
        with collectives.equal_batches():
            return training_loss(self._config, output, labels, step)

    def _update(self, objective: Tensor) -> None:
        self._optimizer.step(objective)
        if self._average is not None:
            self._average.update()

    def _add(self, terms: Mapping[str, Tensor]) -> None:
        if not self._names:
            self.load_sums({name: torch.zeros_like(value) for name, value in terms.items()})
        assert set(self._names) == set(terms), f"terms of one step {set(self._names)}, of another one {set(terms)}"
        self._sums.add_(torch.stack([terms[name] for name in self._names]))


class _WatchedStep(Step):
    """Step that notes whether its number is read, by a method that would compute the same in every replay."""

    number_was_read = False

    def __getattribute__(self, name: str) -> Any:
        if name == "number":
            object.__setattr__(self, "number_was_read", True)
        return super().__getattribute__(name)


def training_loss(
    config: TrainConfig, output: Output, labels: Tensor | None, step: Step
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one step: the method's objective plus the cross-entropies of the detached online probes.

    Args:
        labels: (N,), of this rank's images; None without labels, where there are no probes.

    Returns:
        The scalar to call backward on, and the detached terms to report; both of the global batch.
    """
    loss, terms = config.method(output.z, step)
    if labels is None:
        return loss, {"loss": loss.detach(), **terms}
    labels = labels.repeat(len(output.probe_logits))  # (views that the probes see * N,)
    on_features, on_z = (
        functional.cross_entropy(logits.flatten(0, 1).float(), labels)
        for logits in (output.probe_logits, output.projector_logits)
    )
    return loss + (on_features + on_z), {"loss": loss.detach(), **terms}
