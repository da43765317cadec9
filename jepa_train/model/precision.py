"""Mixed precision: autocast in bf16 or fp16, and the gradient scaler of fp16."""

from typing import Any

import torch
from torch import Tensor

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SCALE = 2.0**16  # initial, torch's


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context for forward passes in a config's precision; fp32 changes nothing."""
    return torch.autocast(device.type, _TYPES.get(precision), enabled=precision in _TYPES)


def input_dtype(precision: str) -> torch.dtype:
    """Type to which autocast brings the images in a config's precision."""
    return _TYPES.get(precision, torch.float32)


class GradientScaler:
    """torch.amp.GradScaler, with a count of the skipped steps.

    In fp16 gradients below 6e-8 become 0. The loss is multiplied by a scale, and the gradients are divided by it before
    an optimiser takes its step. Where one of an optimiser's gradients is inf or NaN it skips the step, and the scale is
    halved; after 2000 steps in a row without overflow the scale is doubled.

    Equal on all ranks: an inf on one of them is in the average of their gradients. On W ranks the gradients by an
    image's activations are W times those of one process (collectives.py), so the scale is one process's over W. Which
    sums over images overflow still depends on a rank's share of them, so the number of ranks can move a skipped step.
    Nothing synchronises with the device.

    Args:
        precision: of the config; with any but fp16 nothing is scaled or skipped.
        ranks: W, the number of ranks that share a batch.
    """

    def __init__(self, precision: str, device: torch.device, *, ranks: int = 1) -> None:
        self._scaler = torch.amp.GradScaler(device.type, init_scale=_SCALE / ranks, enabled=precision == "fp16")
        self._ranks = ranks
        self._one = torch.ones((), device=device)
        self._skipped = torch.zeros((), device=device)

    @property
    def enabled(self) -> bool:
        """True in fp16."""
        return self._scaler.is_enabled()

    @property
    def skipped(self) -> int:
        """Number of steps that at least one optimiser has skipped; reading it synchronises with the device."""
        return int(self._skipped.item())

    def backward(self, loss: Tensor) -> None:
        """Run backward from the scaled loss."""
        self._scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the optimiser's gradients by the scale, and take its step unless one of them is inf or NaN."""
        self._scaler.unscale_(optimizer)
        self._scaler.step(optimizer)

    def update(self) -> None:
        """Choose the next scale; call it after the steps of all optimisers."""
        if self.enabled:
            before = self._scaler.scale(self._one)
            self._scaler.update()
            self._skipped += self._scaler.scale(self._one) < before

    def state_dict(self) -> dict[str, Any]:
        """State, equal on all ranks and with the scale of one process; {} except in fp16."""
        if not self.enabled:
            return {}
        state = self._scaler.state_dict()
        return {"scaler": state | {"scale": state["scale"] * self._ranks}, "skipped": self._skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state_dict."""
        if self.enabled:
            scaler = state["scaler"]
            self._scaler.load_state_dict(scaler | {"scale": scaler["scale"] / self._ranks})
            self._skipped.copy_(state["skipped"])
