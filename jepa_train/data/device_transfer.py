"""What goes from the host to the training device: the images once, where they fit; the rest without waiting."""

import torch
from torch import Tensor

_SHARE = 0.25  # of a device's free memory that images may take: the rest is for the network and its views

_copied: dict[torch.device, tuple[Tensor, Tensor]] = {}  # what resident() was asked for last, and its answer


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, in the order of its stream and without waiting: to a GPU by way of pinned memory.

    From ordinary memory the copy might wait for the work that the GPU has still to do.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def resident(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device, or the same tensor on the host where they would take too much of the device.

    The copy is kept for the next who asks with the same tensor (the other splits, the next cell) and dropped when
    somebody asks with another one: a device never holds the images of two datasets for longer than they are used.
    """
    if device.type == "cpu":
        return images
    source, copy = _copied.pop(device, (None, None))
    if source is not images or copy is None:
        del source, copy  # before the free memory is looked at
        copy = images.to(device) if images.nbytes <= _SHARE * _free(device) else images
    _copied[device] = (images, copy)
    return copy


def _free(device: torch.device) -> int:
    """Bytes, those included which torch's allocator keeps for reuse."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
