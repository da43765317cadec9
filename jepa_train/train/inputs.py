"""Inputs of a training step: what its host part draws and its device part reads."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_train.base.device import has_own_streams
from jepa_train.data.base import Images
from jepa_train.data.pictures import Source

_ALIGNED = 16  # bytes, of each tensor's start in the buffer


class StepInputs:
    """Inputs of the next step, on the training device.

    On a GPU they lie at fixed addresses, so that a captured step reads the new ones. One copy brings all of them there
    but for pixels, in stream order and without synchronisation. On a CPU they are the tensors that send was given, on
    MPS copies of them.

    Args:
        images: of training, on their device (Images.on).
        batch: number of images of this rank in a step.

    Attributes:
        number: of the step, from 0.
        count: the number as a 0-dim int64 tensor on the device; None on a CPU.
        positions: (n,) int64, of this rank's images in the training split.
        fields: of the views, see view_fields.
    """

    def __init__(self, images: Images, batch: int) -> None:
        self.number = 0
        self.count: Tensor | None = None
        self.positions, self.fields = torch.empty(0, dtype=torch.int64), [torch.empty(0)]
        self._images = images
        self._device = images.labels.device
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._streams = {
            id(each): PixelStream(each, batch) for each in images.resolutions if each.pixels.device != self._device
        }

    def send(self, number: int, positions: Tensor, fields: Sequence[Tensor]) -> None:
        """Set the inputs, from tensors on the CPU; types and shapes are the same in every step."""
        self.number, self.positions, self.fields = number, positions, [*fields]
        if not has_own_streams(self._device):
            self.positions, *self.fields = [each.to(self._device) for each in (positions, *fields)]
            return
        firsts = [stream.send(positions) for stream in self._streams.values()]
        self.count, self.positions, *rest = self._sent([torch.tensor(number), positions, *fields, *firsts])
        self.fields = rest[: len(fields)]
        for stream, first in zip(self._streams.values(), rest[len(fields) :], strict=True):
            stream.first = first

    def sources(self) -> list[Source]:
        """Pixels that global views are cropped from and, if there are any, those for local views."""
        found: list[Source] = []
        for images in self._images.resolutions[: len(self.fields)]:
            if found and images is self._images:
                return [*found, *found]
            stream = self._streams.get(id(images))
            found.append(images.source(self.positions) if stream is None else stream.source())
        return found

    def _sent(self, values: Sequence[Tensor]) -> list[Tensor]:
        """The values in the buffer on the device."""
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


class PixelStream:
    """Pixels of a step's images, which come from a memory map into a buffer at a fixed address on the GPU.

    The copy from the host runs on a stream of its own into a second buffer, and so during the step before.

    Args:
        images: with labels on the GPU and pixels on the host.
        batch: number of images in a step.

    Attributes:
        first: (n,) int64 on the GPU, the number of each image's first row in the buffer.
    """

    def __init__(self, images: Images, batch: int) -> None:
        rows = batch * (1 if images.ranges is None else images.ranges.longest)
        shape, device = (rows, *images.pixels.shape[1:]), images.labels.device
        self.first = torch.empty(0, dtype=torch.int64)
        self._images = images
        self._pixels, self._incoming = (torch.zeros(shape, dtype=images.pixels.dtype, device=device) for _ in range(2))
        self._stream, self._taken = torch.cuda.Stream(), torch.cuda.Event()
        self._taken.record()  # the first copy too must wait, for the zeros

    def send(self, positions: Tensor) -> Tensor:
        """Send the images at these positions (n,), on the CPU. Returns the next `first`, on the CPU."""
        index, first = self._images.rows_of(positions)
        pixels = torch.empty((len(index), *self._pixels.shape[1:]), dtype=self._pixels.dtype, pin_memory=True)
        torch.index_select(self._images.pixels, 0, index, out=pixels)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._taken)
            self._incoming[: len(index)].copy_(pixels, non_blocking=True)
        torch.cuda.current_stream().wait_stream(self._stream)
        self._pixels[: len(index)].copy_(self._incoming[: len(index)])
        self._taken.record()
        return first

    def source(self) -> Source:
        """The pixels of the images that were sent last."""
        return self._images.source_in(self._pixels, self.first)


def _parts(buffer: Tensor, starts: Sequence[int], like: Sequence[Tensor]) -> list[Tensor]:
    """Views into the bytes of a buffer, of the types and shapes of some tensors."""
    pairs = zip(starts, like, strict=True)
    return [buffer[start : start + value.nbytes].view(value.dtype).view(value.shape) for start, value in pairs]
