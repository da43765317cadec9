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
class Shapes:
    """Sizes of n images, on the host.

    Args:
        heights, widths: (n,) float64 on the CPU, in pixels.
        lines: of whole pictures, the number of lines that hold any crop, as its aspect ratio is limited; 0 for squares.
    """

    heights: Tensor
    widths: Tensor
    lines: int = 0

    @classmethod
    def of(cls, num: int, short: int, *, lines: int = 0, lengths: Tensor | None = None) -> "Shapes":
        """num images with this shorter side: squares, or whole pictures of lengths (n,) as in LineRanges."""
        sides = torch.full((num,), float(short), dtype=torch.float64)
        if lengths is None:
            assert not lines, "pictures without lengths"
            return cls(heights=sides, widths=sides)
        long, is_wide = lengths.abs().double(), lengths < 0
        heights, widths = torch.where(is_wide, sides, long), torch.where(is_wide, long, sides)
        return cls(heights=heights, widths=widths, lines=lines)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The pixels of n images on the training device, where they lie among others.

    All lines of whole pictures lie in one array, so that no shape depends on which pictures are in a batch.

    Args:
        pixels: (M, C, S, S) squares, or (T, C, S) lines of whole pictures, uint8 or uint16; contiguous.
        first: (n,) int64 on the same device: the number of each square, or of each picture's first line.
        norm: (2, C), factor and offset of values in [0, 1], on the device of the pixels; contiguous.
        lines: as in Shapes.
        lengths: (n,) int64 on the CPU, of whole pictures as in LineRanges; None for squares, and in a training step.
    """

    pixels: Tensor
    first: Tensor
    norm: Tensor
    lines: int = 0
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.first)

    @property
    def shapes(self) -> Shapes:
        """Sizes of the images."""
        return Shapes.of(len(self), self.pixels.shape[-1], lines=self.lines, lengths=self.lengths)


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


def center_of(source: Source, fov: float) -> Tensor:
    """The middle square of every image, as of torchvision's center_crop: (n, C, side, side).

    Args:
        source: with lengths, if of whole pictures.
        fov: side of the square as a share of the shorter side.
    """
    short, device = source.pixels.shape[-1], source.pixels.device
    side = round(fov * short)
    margin = round((short - side) / 2)
    if source.lengths is None:
        assert not source.lines, "pictures without lengths"
        return source.pixels.index_select(0, source.first).narrow(2, margin, side).narrow(3, margin, side)
    skipped = ((source.lengths.abs() - side) / 2).round().long()
    x = gather(source.pixels, source.first + to_device(skipped, device), side).narrow(3, margin, side)
    wide = to_device(source.lengths < 0, device)[:, None, None, None]
    bits = x.view(torch.int16) if x.itemsize == 2 else x  # torch.where has no kernel for uint16 on a GPU
    return torch.where(wide, bits.permute(0, 2, 3, 1), bits.permute(0, 2, 1, 3)).view(x.dtype)  # of (n, side, C, side)


def crop_lines(short: int, longest: int) -> int:
    """Largest number of lines of a crop of pictures with this shorter side, at most `longest` lines long."""
    return min(math.ceil(ASPECT * short) + 1, longest)  # + 1: the sides of crops are rounded
