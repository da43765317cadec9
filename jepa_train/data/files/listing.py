"""List of an image folder: every file below it is either an image of a class, or counted under the reason why not."""

import hashlib
import os
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Of the files that Pillow decodes by itself. A fixed list: the same folder has the same images under every Pillow.
_NAMES = """
.apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico
.iim .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd
.pxr .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm
"""
SUFFIXES = frozenset(_NAMES.split())
_ARRAY = ".npy"  # not of RGB images with labels, whose fingerprint would change
_SYSTEM = frozenset({"@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
_SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
_LAYOUT = "lay it out as train/<class>/ and test/<class>/, train/<class>/ alone, or <class>/"
_MASK = 2**64 - 1

# Reasons why a file is not used, besides "*.suffix" and "no suffix" for names of no image format
HIDDEN, OUTSIDE = "hidden", "outside the class folders"
BROKEN, LOOP, SPECIAL, CLOSED = "broken link", "link to a folder above it", "no regular file", "folder without access"


class PixelFormat(NamedTuple):
    """Number of channels of an image, 1 to 16, and their bits: 8 (uint8) or 16 (uint16)."""

    channels: int = 3
    bits: int = 8

    def __str__(self) -> str:
        return f"{self.channels} channel{'s' * (self.channels > 1)} of {self.bits} bits"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of an array of pixels: uint8, or uint16 in the byte order of .npy files."""
        return np.dtype(f"<u{self.bits // 8}")

    @property
    def suffix(self) -> str:
        """Part of the names of caches, "" for RGB."""
        return "" if self == RGB else f"-{self.channels}x{self.bits}"


RGB = PixelFormat()


Unused = tuple[int, str]  # number of files that are not used for one reason, and the path of the first below the root


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Images of a folder, train before test, in each the classes in order, and the files of a class by path.

    Images without labels all have the label 0, and there is no class.
    """

    root: str
    pixel_format: PixelFormat
    classes: tuple[str, ...]
    files: list[str]  # paths below the root, as text: a million Path objects take half a minute to make
    labels: np.ndarray  # (N,) int64
    stats: np.ndarray  # (N, 4) uint64: size, mtime_ns, ctime_ns, inode
    num_train: int
    has_test: bool
    unused: dict[str, Unused]  # by reason

    @property
    def fingerprint(self) -> str:
        """16 hex digits of relative paths, file sizes and pixel format, if not RGB.

        The root is left out: a copy elsewhere is the same data.
        """
        sizes = self.stats[:, 0].tolist()
        text = "".join(f"{path}\t{size}\n" for path, size in zip(self.files, sizes, strict=True))
        text += self.pixel_format.suffix
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def printable(text: str) -> str:
    """Text with the names of files, on one line and in valid Unicode, which a name need not be."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")


def is_hidden(name: str) -> bool:
    """True for names that start with a dot, and for folders of operating systems and file servers."""
    return name.startswith(".") or name in _SYSTEM


@dataclass
class _Walk:
    """A walk through a folder that finds every file once: as an image, or counted under the reason why it is none.

    Links to folders are followed where images are looked for; elsewhere a link is one file.
    """

    root: str
    suffixes: Collection[str]
    unused: dict[str, Unused] = field(default_factory=dict)

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder, sorted. Its files count as outside the class folders."""
        found = []
        for entry in os.scandir(f"{self.root}/{path}"):
            if is_hidden(entry.name):
                self.count(_join(path, entry.name), HIDDEN)
            elif _is_folder(entry):
                found.append(entry.name)
            else:
                self._add(OUTSIDE, _join(path, entry.name))
        return sorted(found)

    def images(self, path: str, above: Sequence[str] = ()) -> "list[tuple[str, os.DirEntry[str]]]":
        """Paths and entries of the images in and below a folder, sorted by path.

        Args:
            above: the folders that the walk has come through.
        """
        found: list[tuple[str, os.DirEntry[str]]] = []
        above = [*(above or (self.root, os.path.dirname(f"{self.root}/{path}"))), f"{self.root}/{path}"]
        for entry in os.scandir(f"{self.root}/{path}"):
            name, suffix = _join(path, entry.name), os.path.splitext(entry.name)[1].lower()
            if is_hidden(entry.name):
                self.count(name, HIDDEN)
            elif _is_folder(entry):
                if entry.is_symlink() and any(os.path.samefile(entry.path, folder) for folder in above):
                    self._add(LOOP, name)
                else:
                    found += self.images(name, above)
            elif suffix not in self.suffixes:
                self._add(f"*{suffix}" if suffix else "no suffix", name)
            elif os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():
                found.append((name, entry))
            else:
                self._add(BROKEN if entry.is_symlink() else SPECIAL, name)
        return sorted(found, key=itemgetter(0))

    def count(self, path: str, reason: str) -> None:
        """Count a file, or every file in and below a folder, as not used."""
        full = f"{self.root}/{path}"
        if os.path.islink(full) or not os.path.isdir(full):
            return self._add(reason, path)
        try:
            names = os.listdir(full)
        except PermissionError:  # such as lost+found
            return self._add(CLOSED, path)
        for name in names:
            self.count(f"{path}/{name}", reason)

    def _add(self, reason: str, path: str) -> None:
        number, first = self.unused.get(reason, (0, path))
        self.unused[reason] = number + 1, min(first, path)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """True for a folder and a link to one; entry.is_dir() would raise an error for a link to itself."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def list_folder(root: Path, pixel_format: PixelFormat = RGB, *, labelled: bool = True) -> Listing:
    """Every file below the root, as an image of a class or as unused. Without labels folders have no meaning.

    Layouts: train/<class>/ and test/<class>/, train/<class>/ without test/, or <class>/ where there is no train/.
    Images may lie in folders below a class folder.

    Raises:
        ValueError: the first rule of the layout that is broken.
    """
    if root == Path():
        raise ValueError("data.path must be set for an image folder, got ''; set data.path=DIR")
    if not root.is_dir():
        raise ValueError(f"data.path must be a folder, got {str(root)!r}, which is none; set data.path=DIR")
    walk = _Walk(str(root), SUFFIXES if labelled and pixel_format == RGB else SUFFIXES | {_ARRAY})
    classes = _classes(root, walk) if labelled else {"": [""]}
    files: list[str] = []
    labels, stats, cut = array("q"), array("Q"), 0
    for split, names in classes.items():
        least = 1 if split == "test" else 2  # one of train becomes val
        for label, name in enumerate(names):
            folder = _join(split, name)
            images = walk.images(folder)
            if len(images) < least:
                where = f" in {folder}/" if folder else ""
                rule = f"at least {least} images{where}: it has {len(images)}{_others(walk, folder)}"
                raise _broken(root, rule, _LAYOUT if labelled else "set data.path=DIR")
            for path, entry in images:
                stat = entry.stat()
                files.append(path)
                labels.append(label)
                stats.extend(n & _MASK for n in (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
        cut = cut or len(files)
    return Listing(
        root=str(root),
        pixel_format=pixel_format,
        classes=tuple(next(iter(classes.values()))) if labelled else (),
        files=files,
        labels=np.asarray(labels, np.int64),
        stats=np.asarray(stats, np.uint64).reshape(-1, 4),
        num_train=cut,
        has_test="test" in classes,
        unused=dict(sorted(walk.unused.items())),
    )


def _classes(root: Path, walk: _Walk) -> dict[str, list[str]]:
    """Names of the classes by split, "" without splits. Counts all that is beside them."""
    top = walk.folders("")
    splits = [split for split in ("train", "test") if split in top] if "train" in top else [""]
    for name in {*top} - {*splits} if splits != [""] else ():
        walk.count(name, OUTSIDE)
    classes = {split: walk.folders(split) if split else top for split in splits}
    _check_classes(root, classes)
    return classes


def _check_classes(root: Path, classes: dict[str, list[str]]) -> None:
    (first, names), *others = classes.items()
    for split, found in others:
        if unequal := sorted({*names} ^ {*found}):
            raise _broken(root, f"the same classes in {first}/ and {split}/: one of them lacks {unequal[0]!r}")
    if not first:  # splits under other names, or several data sets, are no classes
        inside = (f"{name}/{split}" for name in names for split in _SPLIT_NAMES if (root / name / split).is_dir())
        for path in (*names, *inside):
            if path.rpartition("/")[2].lower() in _SPLIT_NAMES:
                raise _broken(root, f"train/ if it has splits: there is {path}/")
    if len(names) < 2:
        there = f"there is only {names[0]!r}" if names else "there are none"
        raise _broken(root, f"at least 2 classes: {there}", f"{_LAYOUT}; or set data.name=unlabelled_folder")


def _others(walk: _Walk, folder: str) -> str:
    """Addition to a message: files of the folder that are not used, by reason."""
    alone = _Walk(walk.root, walk.suffixes)
    alone.images(folder)
    found = [f"{number} {reason}" for reason, (number, _) in alone.unused.items()]
    return f" (not used: {', '.join(found)})" if found else ""


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _broken(root: Path, rule: str, remedy: str = _LAYOUT) -> ValueError:
    return ValueError(printable(f"data.path must hold {rule}, got {str(root)!r}; {remedy}"))
