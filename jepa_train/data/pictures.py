"""Whole pictures of different sizes in one array: lines of equal length, from which crops and centers are gathered."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jepa_train.data.device_transfer import to_device

LONGEST = 16  # longer side of a whole picture as a multiple of its shorter side; a longer picture loses both ends


@dataclass(frozen=True, eq=False)
class LineRanges:
    """Place of a data set's pictures in the array of their lines.

    A picture is as many lines of S pixels as its longer side has: its rows, or its columns if it is wider than high.
    Channel c of its pixel (y, x) is lines[first + y, c, x], of a wide one lines[first + x, c, y].

    Args:
        lengths: (M,) int64, the number of lines of each picture, negative where they are columns.
    """

    lengths: Tensor
    first: Tensor = field(init=False)  # (M,) int64, the first line of each picture
    longest: int = field(init=False)  # the largest number of lines

    def __post_init__(self) -> None:
        counts = self.lengths.abs()
        object.__setattr__(self, "first", counts.cumsum(0) - counts)
        object.__setattr__(self, "longest", int(counts.max()))


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A batch of whole pictures with the same shorter side, S pixels.

    All lines of a data set lie in one array, and a crop, whose aspect ratio is limited, lies within crop_lines() of
    them. So no shape depends on which pictures are in the batch.

    Args:
        lines: (T, 3, S) uint8, also of other pictures.
        first, lengths: (n,) int64 on the CPU, as in LineRanges.
        longest: as in LineRanges, of the data set.
    """

    lines: Tensor
    first: Tensor
    lengths: Tensor
    longest: int

    def __len__(self) -> int:
        return len(self.first)

    @property
    def device(self) -> torch.device:
        """Device of the pixels."""
        return self.lines.device

    @property
    def is_wide(self) -> Tensor:
        """(n,) bool on the CPU: wider than high."""
        return self.lengths < 0

    def crop_lines(self, aspect: float) -> int:
        """Largest number of lines of a crop of at most this aspect ratio."""
        return min(math.ceil(aspect * self.lines.shape[-1]) + 1, self.longest)  # + 1: the sides of crops are rounded


def as_lines(image: np.ndarray) -> tuple[np.ndarray, int]:
    """A picture (3, H, W) as its lines (L, 3, S), and their number as in LineRanges."""
    height, width = image.shape[1:]
    if width > height:
        return np.ascontiguousarray(image.transpose(2, 0, 1)), -width
    return np.ascontiguousarray(image.transpose(1, 0, 2)), height


def gather(lines: Tensor, first: Tensor, count: int) -> Tensor:
    """`count` lines from each of the lines `first` on, (n,) on the CPU: (n, count, 3, S) on the device of the lines.

    Beyond the end of the array its last line is repeated.
    """
    index = (first[:, None] + torch.arange(count)).clamp_(max=len(lines) - 1)
    return lines.index_select(0, to_device(index.flatten(), lines.device)).unflatten(0, index.shape)


def sides_of(images: Tensor | Pictures) -> tuple[Tensor, Tensor]:
    """Heights and widths in pixels, (n,) float64 on the CPU."""
    if isinstance(images, Tensor):
        height, width = (torch.full((len(images),), side, dtype=torch.float64) for side in images.shape[-2:])
        return height, width
    long, short = images.lengths.abs().double(), float(images.lines.shape[-1])
    return torch.where(images.is_wide, short, long), torch.where(images.is_wide, long, short)


def center_of(images: Tensor | Pictures, fov: float) -> Tensor:
    """The middle square of every image, as of torchvision's center_crop: (n, 3, side, side) uint8.

    Args:
        images: (n, 3, S, S) uint8, or n whole pictures.
        fov: side of the square as a share of the shorter side.
    """
    if isinstance(images, Tensor):
        side = round(fov * images.shape[-1])
        margin = round((images.shape[-1] - side) / 2)
        return images[..., margin : margin + side, margin : margin + side]
    side = round(fov * images.lines.shape[-1])
    start = images.first + ((images.lengths.abs() - side) / 2).round().long()
    x = gather(images.lines, start, side).narrow(3, round((images.lines.shape[-1] - side) / 2), side)
    wide = to_device(images.is_wide, images.device)[:, None, None, None]
    return torch.where(wide, x.permute(0, 2, 3, 1), x.permute(0, 2, 1, 3))  # from (n, side, 3, side)
