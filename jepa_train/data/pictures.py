"""Images that views are cropped from: squares, or whole pictures of different sizes.

All lines of whole pictures have the same length and lie in one array, from which crops and centers are gathered.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jepa_train.data.device_transfer import to_device

ASPECT = 4 / 3  # width / height of a crop lies in [1 / ASPECT, ASPECT]
# Normalization (2, C), factor and offset of values in [0, 1], of 8-bit RGB in every data set: to [-2, 2]
RGB_NORM = torch.tensor([[4.0] * 3, [-2.0] * 3])
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

    All lines of a data set lie in one array, and a crop, whose aspect ratio is limited, lies within Shapes.lines of
    them. So no shape depends on which pictures are in the batch.

    Args:
        lines: (T, C, S) uint8 or uint16, also of other pictures.
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


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Sizes of n images, on the host.

    Args:
        heights, widths: (n,) float64 on the CPU, in pixels.
        lines: of whole pictures, the number of lines that hold any crop; 0 for squares.
    """

    heights: Tensor
    widths: Tensor
    lines: int = 0

    @classmethod
    def of_squares(cls, num: int, side: int) -> "Shapes":
        """num squares."""
        sides = torch.full((num,), float(side), dtype=torch.float64)
        return cls(heights=sides, widths=sides)

    @classmethod
    def of_pictures(cls, lengths: Tensor, short: int, longest: int) -> "Shapes":
        """Whole pictures with the shorter side `short`; lengths and longest as in Pictures."""
        long, is_wide = lengths.abs().double(), lengths < 0
        heights, widths = torch.where(is_wide, short, long), torch.where(is_wide, long, short)
        return cls(heights=heights, widths=widths, lines=_crop_lines(short, longest))


@dataclass(frozen=True, kw_only=True)
class Source:
    """The pixels of n images on the training device, where they lie among others.

    Args:
        pixels: (M, C, S, S) squares, or (T, C, S) lines of whole pictures, uint8 or uint16; contiguous.
        first: (n,) int64 on the same device: the number of each square, or of each picture's first line.
        norm: (2, C), factor and offset of values in [0, 1], on the device of the pixels; contiguous.
        lines: as in Shapes.
    """

    pixels: Tensor
    first: Tensor
    norm: Tensor
    lines: int = 0

    @classmethod
    def of_pictures(cls, lines: Tensor, first: Tensor, longest: int, norm: Tensor) -> "Source":
        """The pictures that begin at these lines; longest as in Pictures."""
        return cls(pixels=lines, first=first, lines=_crop_lines(lines.shape[-1], longest), norm=norm)


def shapes_of(images: Tensor | Pictures) -> Shapes:
    """The sizes of a batch: (n, C, S, S), or n whole pictures."""
    if isinstance(images, Tensor):
        return Shapes.of_squares(len(images), images.shape[-1])
    return Shapes.of_pictures(images.lengths, images.lines.shape[-1], images.longest)


def source_of(images: Tensor | Pictures, norm: Tensor = RGB_NORM) -> Source:
    """The pixels of a batch: (n, C, S, S), or n whole pictures."""
    norm = to_device(norm, images.device)
    if isinstance(images, Tensor):
        return Source(pixels=images.contiguous(), first=torch.arange(len(images), device=images.device), norm=norm)
    return Source.of_pictures(images.lines, to_device(images.first, images.device), images.longest, norm)


def as_lines(image: np.ndarray) -> tuple[np.ndarray, int]:
    """A picture (C, H, W) as its lines (L, C, S), and their number as in LineRanges."""
    height, width = image.shape[1:]
    if width > height:
        return np.ascontiguousarray(image.transpose(2, 0, 1)), -width
    return np.ascontiguousarray(image.transpose(1, 0, 2)), height


def gather(lines: Tensor, first: Tensor, count: int) -> Tensor:
    """`count` lines from each of the lines `first` on, (n,) on their device: (n, count, C, S).

    Beyond the end of the array its last line is repeated.
    """
    index = (first[:, None] + torch.arange(count, device=lines.device)).clamp_(max=len(lines) - 1)
    return lines.index_select(0, index.flatten()).unflatten(0, index.shape)


def center_of(images: Tensor | Pictures, fov: float) -> Tensor:
    """The middle square of every image, as of torchvision's center_crop: (n, C, side, side).

    Args:
        images: (n, C, S, S), or n whole pictures.
        fov: side of the square as a share of the shorter side.
    """
    if isinstance(images, Tensor):
        side = round(fov * images.shape[-1])
        margin = round((images.shape[-1] - side) / 2)
        return images[..., margin : margin + side, margin : margin + side]
    side = round(fov * images.lines.shape[-1])
    start = images.first + ((images.lengths.abs() - side) / 2).round().long()
    x = gather(images.lines, to_device(start, images.device), side)
    x = x.narrow(3, round((images.lines.shape[-1] - side) / 2), side)
    wide = to_device(images.is_wide, images.device)[:, None, None, None]
    bits = x.view(torch.int16) if x.itemsize == 2 else x  # torch.where has no kernel for uint16 on a GPU
    return torch.where(wide, bits.permute(0, 2, 3, 1), bits.permute(0, 2, 1, 3)).view(x.dtype)  # of (n, side, C, side)


def _crop_lines(short: int, longest: int) -> int:
    """Largest number of lines of a crop of pictures with this shorter side, at most `longest` lines long."""
    return min(math.ceil(ASPECT * short) + 1, longest)  # + 1: the sides of crops are rounded
