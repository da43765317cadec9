"""Copies from the host to the training device: images once, if they fit; other tensors without synchronization."""

import torch
from torch import Tensor

_SHARE = 0.25  # share of a device's free memory for images; the rest is for the network and its views

_copied: dict[torch.device, tuple[Tensor, Tensor]] = {}  # last argument and result of cached_on_device, by device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device, in stream order and without synchronization: to a GPU through pinned memory.

    A copy from pageable memory could wait for queued work of the GPU.
    """
    from_host = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory().to(device, non_blocking=True) if from_host else tensor.to(device)


def cached_on_device(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device, or the same tensor on the host if they would take too much of the device's memory.

    The copy is kept for further calls with the same tensor (the other splits, the next cell) and dropped by a call with
    another one, so a device holds the images of one data set.
    """
    if device.type == "cpu":
        return images
    source, copy = _copied.pop(device, (None, None))
    if source is not images or copy is None:
        del source, copy  # before the free memory is measured
        fits = device.type == "mps" or images.nbytes <= _SHARE * _free(device)  # MPS shares the host's memory
        copy = images.to(device) if fits else images
    _copied[device] = (images, copy)
    return copy


def _free(device: torch.device) -> int:
    """Free bytes, including those that torch's allocator keeps for reuse."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
