"""AdamW or LARS with linear warm-up and cosine decay, for the encoder and, at their own lr, the online probes."""

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jepa_train.config import OptimConfig, ProbeConfig, TrainConfig
from jepa_train.distributed.collectives import average_gradients, world_size
from jepa_train.model.device import schedule_tensor, write_schedule
from jepa_train.model.lars import Lars
from jepa_train.model.network import Network
from jepa_train.model.precision import GradientScaler

logger = logging.getLogger(__name__)


class Optimizer:
    """Optimisers whose learning rates are a pure function of the number of steps taken.

    A step has a host part, begin_step, and a device part, step, which a CUDA graph can replay: operations and Python
    numbers of step are the same each time, and the learning rates are read on the device.

    Args:
        optimizers: the first group of the first one has the encoder's weights; each group's lr is its peak.
        schedules: of each optimizer, the learning rate of a step as a fraction of the peak.
        scaler: of the gradients; it counts a skipped step as taken.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        schedules: Sequence[Callable[[int], float]],
        scaler: GradientScaler,
    ) -> None:
        self.optimizers = tuple(optimizers)
        self.scaler = scaler
        self.steps_taken = 0
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        pairs = zip(self.optimizers, schedules, strict=True)
        self._groups = [(group["lr"], schedule) for part, schedule in pairs for group in part.param_groups]
        peaks = [peak for peak, _ in self._groups]
        self._rates = schedule_tensor(peaks, self.optimizers[0].param_groups[0]["params"][0].device)
        self._share_rates()

    def schedule_row(self, step: int) -> list[float]:
        """Learning rate of every group of the optimisers, in their order, at a step."""
        return [peak * schedule(step) for peak, schedule in self._groups]

    def begin_step(self) -> None:
        """Host part of the next step: write its learning rates to the device, and count the step as taken."""
        write_schedule(self._rates, self.schedule_row(self.steps_taken))
        self.steps_taken += 1

    def step(self, loss: Tensor) -> None:
        """Device part of a step: backward, mean over the ranks, update at the rates of begin_step; drops gradients."""
        self.scaler.backward(loss)
        average_gradients(self._parameters)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()

    @property
    def lr(self) -> float:
        """The encoder's learning rate of the last step taken; before the first one, the peak. Reads no device."""
        return self.schedule_row(self.steps_taken - 1)[0] if self.steps_taken else self._groups[0][0]

    def state_dict(self) -> dict[str, Any]:
        """State without the schedule, which the config determines; torch.load reads it with weights_only=True."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps_taken": self.steps_taken,
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state_dict bit for bit, in place where there is a state; the network restores the parameters.

        Settings of the groups are the config's: an older version stores others, such as timm's for LARS.
        """
        for optimizer, part in zip(self.optimizers, state["optimizers"], strict=True):
            own = dict(optimizer.state)
            settings = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": part["state"], "param_groups": settings})
            for parameter, tensors in own.items():
                loaded = optimizer.state[parameter]
                for name, tensor in tensors.items():
                    tensor.copy_(loaded[name]) if name in loaded else tensor.zero_()
                optimizer.state[parameter] = tensors
        self._share_rates()  # torch has copied them
        self.steps_taken = state["steps_taken"]
        self.scaler.load_state_dict(state.get("scaler", {}))

    def _share_rates(self) -> None:
        """Make each group's lr the element of the rates that belongs to it."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, self._rates.unbind(), strict=True):
            group["lr"] = rate


def build_optimizer(network: Network, config: TrainConfig, steps_per_epoch: int) -> Optimizer:
    """Build the optimiser of a run; the network must already be on its device.

    The online probes are on AdamW by default, so that probe.lr has one meaning and all methods are compared by the same
    probe. With probe.optimizer="encoder" they have an optimiser of the encoder's kind, as in solo-learn, where all
    parameters are groups of one optimiser.
    """
    total_steps = config.epochs * steps_per_epoch
    warmup_steps = round(config.optim.warmup_epochs * steps_per_epoch)
    if 0 < total_steps <= warmup_steps:
        logger.warning(
            "optim.warmup_epochs=%g covers all of epochs=%d: the learning rate never decays; lower it",
            config.optim.warmup_epochs,
            config.epochs,
        )
    trained = parameter_groups([network.encoder, network.projector, network.predictor], config.optim)
    probes = parameter_groups([network.probe, network.projector_probe], config.probe)
    of_probes = config.optim.name if config.probe.optimizer == "encoder" else "adamw"
    scaler = GradientScaler(config.precision, next(network.parameters()).device, ranks=world_size())
    optimizers: list[torch.optim.Optimizer] = []
    for name, groups in ((config.optim.name, trained), (of_probes, probes))[: 1 + network.has_probes]:
        optimizers.append(lars(groups, config.optim) if name == "lars" else adamw(groups))
    at = functools.partial(lr_at, total_steps=total_steps, warmup_steps=warmup_steps)
    schedule = functools.partial(at, final_lr_frac=config.optim.final_lr_frac)
    if config.optim.swa_lr:
        schedule = functools.partial(
            swa_lr_at,
            schedule=schedule,
            start=config.model.swa_start * steps_per_epoch,
            anneal_steps=config.optim.swa_anneal_epochs * steps_per_epoch,
            swa_lr_frac=config.optim.swa_lr / config.optim.lr,
        )
    constant = functools.partial(at, final_lr_frac=1.0)
    of_probe = schedule if config.probe.schedule == "encoder" else constant
    return Optimizer(optimizers, schedules=(schedule, of_probe)[: len(optimizers)], scaler=scaler)


def adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """AdamW, betas .9 and .999. Fused: 7 times as fast as the default on a CPU for a ResNet-18 (6 against 41 ms).

    On a GPU a CUDA graph can capture its step.
    """
    return torch.optim.AdamW(groups, fused=True, capturable=groups[0]["params"][0].is_cuda)


def lars(groups: list[dict[str, Any]], config: OptimConfig) -> Lars:
    """LARS as in Rectified LpJEPA's recipes (solo-learn: clip_lr, exclude_bias_n_norm), for groups of parameter_groups.

    Biases and norms are not adapted. A weight with |w| = 0 or |g| = 0 is, in place of solo-learn's d = g: this affects
    only a weight without any gradient, which decays here and stays there.
    """
    weights, rest = groups
    groups = [weights | {"adapted": True}, rest | {"adapted": False}]
    return Lars(groups, momentum=config.momentum, eta=config.lars_eta)


def parameter_groups(modules: Sequence[nn.Module], options: OptimConfig | ProbeConfig) -> list[dict[str, Any]]:
    """Two groups of the modules' parameters: weights, with decay, then biases and norms, with decay_all alone."""
    parameters = list(nn.ModuleList(modules).parameters())
    decays_all = isinstance(options, OptimConfig) and options.decay_all
    return [
        {"params": params, "lr": options.lr, "weight_decay": weight_decay}
        for params, weight_decay in (
            ([parameter for parameter in parameters if parameter.ndim > 1], options.weight_decay),
            ([parameter for parameter in parameters if parameter.ndim <= 1], options.weight_decay * decays_all),
        )
    ]


def lr_at(step: int, *, total_steps: int, warmup_steps: int, final_lr_frac: float) -> float:
    """Learning rate of a step as a fraction of its peak; the floor is a fraction too, so that it never raises lr.

    Linear warm-up (step + 1) / warmup_steps: the first step is not lost, and step warmup_steps - 1 is at the peak. Then
    a cosine that reaches final_lr_frac at the last step. A warm-up longer than the run is cut off.

    Args:
        step: from 0 to total_steps - 1.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    peak = max(warmup_steps - 1, 0)  # the step at the peak
    progress = (step - peak) / max(total_steps - 1 - peak, 1)
    return final_lr_frac + (1 - final_lr_frac) * 0.5 * (1 + math.cos(math.pi * progress))


def swa_lr_at(
    step: int, *, schedule: Callable[[int], float], start: int, anneal_steps: int, swa_lr_frac: float
) -> float:
    """Learning rate as a fraction of its peak: a schedule up to a step, then a cosine to swa_lr_frac, which it keeps.

    Equal to torch.optim.swa_utils.SWALR(anneal_epochs=anneal_steps) stepped after every step from start - 1 on; stepped
    once per epoch, SWALR has these rates in the last step of each epoch.

    Args:
        start: the first step that the schedule does not decide; at least 1.
        anneal_steps: the last of this many steps is the first at swa_lr_frac; 0: they all are.
    """
    if step < start:
        return schedule(step)
    progress = min((step - start + 1) / max(anneal_steps, 1), 1)
    share = 0.5 * (1 - math.cos(math.pi * progress))
    return share * swa_lr_frac + (1 - share) * schedule(start - 1)
