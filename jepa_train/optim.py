"""AdamW with linear warm-up and cosine decay; the online probes share the schedule at their own learning rate."""

import logging
import math
from typing import Any

import torch
from torch import Tensor, nn

from jepa_train.config import TrainConfig
from jepa_train.models import Network

logger = logging.getLogger(__name__)


class Optimizer:
    """AdamW whose learning rates are a pure function of the number of steps taken.

    Args:
        groups: AdamW's parameter groups; each one's lr is its peak.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, total_steps: int, warmup_steps: int, final_lr_frac: float
    ) -> None:
        # fused: 7x faster than the default on CPU for a ResNet-18 (6 against 41 ms).
        self.adamw = torch.optim.AdamW(groups, fused=True)
        self.steps_taken = 0
        self._peaks = [group["lr"] for group in groups]
        self._total_steps = total_steps
        self._warmup_steps = warmup_steps
        self._final_lr_frac = final_lr_frac

    def step(self, loss: Tensor) -> None:
        """Backward, one update at this step's learning rates, gradients cleared."""
        factor = lr_at(
            self.steps_taken,
            total_steps=self._total_steps,
            warmup_steps=self._warmup_steps,
            final_lr_frac=self._final_lr_frac,
        )
        for group, peak in zip(self.adamw.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        loss.backward()
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.steps_taken += 1

    def state_dict(self) -> dict[str, Any]:
        return {"adamw": self.adamw.state_dict(), "steps_taken": self.steps_taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adamw.load_state_dict(state["adamw"])
        self.steps_taken = state["steps_taken"]

    @property
    def lr(self) -> float:
        """The encoder's learning rate of the last step taken; before the first one, the peak."""
        return self.adamw.param_groups[0]["lr"]


def build_optimizer(network: Network, config: TrainConfig, steps_per_epoch: int) -> Optimizer:
    """The optimiser of a run; the network must already lie on its device."""
    total_steps = config.epochs * steps_per_epoch
    warmup_steps = round(config.optim.warmup_epochs * steps_per_epoch)
    if 0 < total_steps <= warmup_steps:
        logger.warning(
            "optim.warmup_epochs=%g covers all of epochs=%d: the learning rate never decays; lower it",
            config.optim.warmup_epochs,
            config.epochs,
        )
    return Optimizer(
        parameter_groups(network, config),
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        final_lr_frac=config.optim.final_lr_frac,
    )


def parameter_groups(network: Network, config: TrainConfig) -> list[dict[str, Any]]:
    """Every parameter in one of four groups: encoder and projector, or probes; decayed, or bias or norm (not decayed).

    The first group is the encoder's and projector's decayed weights.
    """
    groups: list[dict[str, Any]] = []
    for modules, options in (
        ((network.encoder, network.projector), config.optim),
        ((network.probe, network.projector_probe), config.probe),
    ):
        parameters = list(nn.ModuleList(modules).parameters())
        for params, weight_decay in (
            ([parameter for parameter in parameters if parameter.ndim > 1], options.weight_decay),
            ([parameter for parameter in parameters if parameter.ndim <= 1], 0.0),
        ):
            groups.append({"params": params, "lr": options.lr, "weight_decay": weight_decay})
    return groups


def lr_at(step: int, *, total_steps: int, warmup_steps: int, final_lr_frac: float) -> float:
    """The learning rate of a step as a fraction of its peak; the floor is relative, so no lr is ever raised by it.

    Linear: (step + 1) / warmup_steps, so that the first step is not lost and step warmup_steps - 1 is at the peak.
    Then a cosine that reaches final_lr_frac at the last step. A warm-up longer than the run is cut off by its end.

    Args:
        step: from 0 to total_steps - 1.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    peak = max(warmup_steps - 1, 0)  # the step at the peak
    progress = (step - peak) / max(total_steps - 1 - peak, 1)
    return final_lr_frac + (1 - final_lr_frac) * 0.5 * (1 + math.cos(math.pi * progress))
