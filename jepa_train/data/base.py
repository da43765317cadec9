"""Interface of the datasets and their shared functions: resizing and stratified, deterministic splits."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.base.seeds import generator
from jepa_train.config import DataConfig
from jepa_train.data.device_transfer import cached_on_device, to_device
from jepa_train.data.pictures import RGB_NORM, LineRanges, Shapes, Source, crop_lines


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images: rows of a read-only array of pixels that splits and processes share.

    Args:
        pixels: (M, C, S, S), or (T, C, S) lines of whole pictures, uint8 or uint16; usually a read-only memory map.
        rows: (N,) int64, numbers of the images, on the device of the pixels; of whole pictures on the CPU.
        labels: (N,) int64, on the device of the batches; all 0 where the data has no labels.
        ranges: of the pictures in the lines; None for squares.
        local: the same images at another resolution, for local views; None if these serve for them too.
        norm: (2, C), factor and offset by which values in [0, 1] are normalised.
    """

    pixels: Tensor
    rows: Tensor
    labels: Tensor
    ranges: LineRanges | None = None
    local: "Images | None" = None
    norm: Tensor = RGB_NORM

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor) -> "Images":
        """The images at these positions (k,) int64; the pixels stay where they are."""
        local = None if self.local is None else self.local.take(positions)
        return replace(self, rows=self.rows[positions], labels=self.labels[positions], local=local)

    def on(self, device: torch.device) -> "Images":
        """The images for training on this device, on which batch() then returns its tensors.

        Pixels that fit on a GPU are copied to it (device_transfer.cached_on_device); others, and those for local views,
        stay in the memory map.
        """
        labels = to_device(self.labels, device)
        pixels = cached_on_device(self.pixels, labels.device)
        rows = to_device(self.rows, pixels.device) if self.ranges is None else self.rows
        norm = to_device(self.norm, labels.device)
        local = None if self.local is None else replace(self.local, labels=labels, norm=norm)
        return replace(self, pixels=pixels, rows=rows, labels=labels, local=local, norm=norm)

    def with_norm(self, norm: Tensor) -> "Images":
        """The images with another normalization."""
        return replace(self, norm=norm, local=None if self.local is None else replace(self.local, norm=norm))

    def shapes(self, positions: Tensor) -> list[Shapes]:
        """Sizes of the images at these positions (n,), on the CPU: those for global views, and those for local ones."""
        return [
            Shapes.of(len(positions), each.pixels.shape[-1], lines=each._lines, lengths=each._lengths(positions))
            for each in self.resolutions
        ]

    def source(self, positions: Tensor) -> Source:
        """Pixels of the images at these positions (n,), of this resolution.

        The positions, and all pixels, are on the device of the batches. Copies nothing to the device, except in the
        first call.
        """
        return self.source_in(self.pixels, self._starts.index_select(0, positions))

    def source_in(self, pixels: Tensor, first: Tensor, lengths: Tensor | None = None) -> Source:
        """Images of this resolution among other pixels, which begin at the numbers `first` (n,) along them."""
        return Source(pixels=pixels, first=first, norm=self.norm, lines=self._lines, lengths=lengths)

    @property
    def resolutions(self) -> tuple["Images", "Images"]:
        """The images for global views and those for local ones; the same where one resolution serves for both."""
        return self, self if self.local is None else self.local

    def rows_of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of all rows of pixels that the images at these positions (n,) have, and where each begins among them.

        All on the CPU. A square is one row of pixels, a picture as many as it has lines.
        """
        rows = self.rows[positions]
        if self.ranges is None:
            return rows, torch.arange(len(rows))
        first, lengths = self.ranges.first[rows], self.ranges.lengths[rows].abs()
        ends = lengths.cumsum(0)
        starts = ends - lengths
        return torch.arange(int(ends[-1])) + (first - starts).repeat_interleave(lengths), starts

    @property
    def _lines(self) -> int:
        """Number of lines that hold any crop; 0 for squares."""
        return 0 if self.ranges is None else crop_lines(self.pixels.shape[-1], self.ranges.longest)

    def _lengths(self, positions: Tensor) -> Tensor | None:
        """LineRanges.lengths of the images at these positions (n,), on the CPU; None for squares."""
        return None if self.ranges is None else self.ranges.lengths[self.rows[positions]]

    @functools.cached_property
    def _starts(self) -> Tensor:
        """(N,) int64: the index along the pixels at which each image begins, on their device."""
        starts = self.rows if self.ranges is None else self.ranges.first[self.rows]
        return to_device(starts, self.pixels.device)

    def batch(self, positions: Tensor) -> tuple[Source, Tensor]:
        """Images and labels (n,) at these positions (n,), which are on the CPU.

        Pixels that lie on the device are not copied. Never synchronizes, except in the first call.
        """
        device = self.labels.device
        on_device = to_device(positions, device)
        if self.pixels.device == device:
            pixels, first = self.pixels, self._starts.index_select(0, on_device)
        else:
            index, first = self.rows_of(positions)
            pixels, first = self._sent(index), to_device(first, device)
        return self.source_in(pixels, first, self._lengths(positions)), self.labels.index_select(0, on_device)

    def _sent(self, index: Tensor) -> Tensor:
        """These rows of the pixels, sent to the device of the batches."""
        shape = (len(index), *self.pixels.shape[1:])
        # torch keeps pinned memory until the copy is complete
        pixels = torch.empty(shape, dtype=self.pixels.dtype, pin_memory=True)
        torch.index_select(self.pixels, 0, index, out=pixels)
        return pixels.to(self.labels.device, non_blocking=True)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Train, val (carved out of the training split) and test, with the class names in label order.

    Data without labels has no classes.
    """

    train: Images
    val: Images
    test: Images  # none where the data has no test split
    classes: tuple[str, ...]
    skipped: int  # corrupt images, in none of the three


@dataclass(frozen=True, kw_only=True, eq=False)
class Inventory:
    """Files of a data set. The default is data whose name says what it is.

    Args:
        fingerprint: hash of the files' names and sizes.
        content: hash of the files' bytes, "" as long as not all have been read.
        altered: this version decodes some of them to other pixels than version 2 did, so the content is a new one.
        labels: of the training and of the test images, without files that are known to be corrupt.
        unread: number of files that have not been read, or may have changed since.
        skipped: number of corrupt files.
        unused: number of files that are no images of a class, and the first of them, by reason.
        converted: number of images with a conversion, by its description.
    """

    fingerprint: str = ""
    content: str = ""
    altered: bool = False
    has_test: bool = True
    classes: tuple[str, ...] = ()
    labels: tuple[Tensor, Tensor] = (torch.empty(0, dtype=torch.int64),) * 2
    unread: int = 0
    skipped: int = 0
    unused: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LoadedDataset:
    """Content of a dataset, with the class names in label order."""

    train: Images
    test: Images  # none where the data has no test split
    classes: tuple[str, ...]
    inventory: Inventory = field(default_factory=Inventory)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One row of DATASETS. The functions raise ValueError for data that is missing or malformed.

    Their path is the local folder of config.path; Path() means unset. The defaults are for data whose name says what it
    is.

    Args:
        load: (path, config) -> the images as config asks for them.
        identify: (path, config) -> its files. Cheap: it runs before anything starts and reads no image.
        read: (path, config, keep) -> its files, all of them read, so that their content is known. If none has been read
            before, keep prepares the images as well.
        class_sizes: training images of each class, val included, of data that its name identifies.
        labelled: false for images without labels, whose runs have no accuracies.
    """

    load: Callable[[Path, DataConfig], LoadedDataset]
    identify: Callable[[Path, DataConfig], Inventory] = lambda _path, _config: Inventory()
    read: Callable[[Path, DataConfig, bool], Inventory] = lambda _path, _config, _keep: Inventory()
    class_sizes: tuple[int, ...] = ()
    labelled: bool = True


def resize(pixels: Tensor, size: int) -> Tensor:
    """Square images at another size, bilinear with antialiasing: (N, 3, H, H) uint8 -> (N, 3, size, size) uint8."""
    if pixels.shape[-1] == size:
        return pixels
    return functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)


def stratified_split(labels: Tensor, fraction: float, *, purpose: str) -> tuple[Tensor, Tensor]:
    """Positions (rest, held out), both ascending, with `fraction` of the images of every class held out.

    Each class has at least one image in both. The draw depends on the purpose alone.

    Args:
        labels: (N,) int64.

    Raises:
        ValueError: a class has a single image.
    """
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            raise ValueError(f"data.path must hold at least 2 images of each class, number {label} has 1; add one")
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        order = torch.randperm(len(members), generator=generator(purpose, label))
        held_out[members[order[:count]]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
