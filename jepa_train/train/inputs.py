"""Inputs of a training step: what its host part draws and its device part reads."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNED = 16  # bytes, of each tensor's start in the buffer


class StepInputs:
    """Inputs of the next step, on the training device.

    On a GPU they lie at fixed addresses, so that a captured step reads the new ones, and one copy brings all of them
    there, in stream order and without synchronisation. On a CPU they are the tensors that send was given.

    Attributes:
        number: of the step, from 0.
        positions: (n,) int64, of this rank's images in the training split.
    """

    def __init__(self, device: torch.device) -> None:
        self.number = 0
        self.positions = torch.empty(0, dtype=torch.int64)
        self._device = device
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def send(self, number: int, positions: Tensor) -> None:
        """Set the inputs; the types and shapes are the same in every step."""
        self.number = number
        _, self.positions = self._on_device([torch.tensor(number), positions])

    def _on_device(self, values: Sequence[Tensor]) -> list[Tensor]:
        if self._device.type == "cpu":
            return list(values)
        sizes = (-(-value.nbytes // _ALIGNED) * _ALIGNED for value in values)
        *starts, size = itertools.accumulate(sizes, initial=0)
        if not len(self._buffer):
            self._buffer = torch.empty(size, dtype=torch.uint8, device=self._device)
        assert len(self._buffer) == size, f"inputs of other shapes: {size} bytes after {len(self._buffer)}"
        packed = torch.empty(size, dtype=torch.uint8, pin_memory=True)  # torch keeps it until the copy is complete
        for place, value in zip(_parts(packed, starts, values), values, strict=True):
            place.copy_(value)
        self._buffer.copy_(packed, non_blocking=True)
        return _parts(self._buffer, starts, values)


def _parts(buffer: Tensor, starts: Sequence[int], like: Sequence[Tensor]) -> list[Tensor]:
    """Views into the bytes of a buffer, of the types and shapes of some tensors."""
    pairs = zip(starts, like, strict=True)
    return [buffer[start : start + value.nbytes].view(value.dtype).view(value.shape) for start, value in pairs]
