"""Decoding of one image file, with a digest of the file and a record of what was converted.

Files of any kind become 8-bit RGB; with another pixel format they must have just this one, and keep their values.
"""

import hashlib
import io
import math
import re
from enum import IntFlag
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from jepa_train.data.files.listing import RGB, PixelFormat

# Raise it when files of some kind decode to other pixels, and give that kind a note and a person as below. Other files
# keep their digests: only the names of cache and index change.
VERSION = 3
_ALTERED_BY, _CORRUPT_FOR = b"decoder 3", b"corrupt"  # personalize the digests of files with Note.ALTERED and CORRUPT

_DRAFT = 2.0  # large JPEGs are decoded at 1/2, 1/4 or 1/8, at least at this multiple of the final size
_BACKGROUND = (255, 255, 255)  # behind transparent pixels
_RANGES = (2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)  # largest values of the bit depths of cameras
_PHOTOMETRIC = 262  # tag of a TIFF
_NUMPY = b"\x93NUMPY"  # the first bytes of an .npy file
_MOST_CHANNELS = 16
OTHER_FORMAT = "it has data.channels="  # beginning of the reason of a file that could be read
_WHOLE = frozenset({"L", "LA", "RGB", "RGBA", "CMYK"})  # modes with 8 bits per channel, and no palette
_NOT_DECODED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})  # by other programs, or not at all
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Note(IntFlag):
    """Facts about a decoded file, stored as one number."""

    CORRUPT = 1  # no image
    ALTERED = 2  # version 3 of the decoder gives other pixels than version 2
    TURNED = 4
    TRANSPARENT = 8
    DEEP_GREY = 16
    DEEP_COLOUR = 32
    COLOUR_SPACE = 64
    FRAMES = 128


# Conversions that are reported, with the words for them
CONVERSIONS = {
    Note.TURNED: "turned by EXIF orientation",
    Note.TRANSPARENT: "transparent on white",
    Note.DEEP_GREY: "deep grey to 8 bits",
    Note.DEEP_COLOUR: "deep color to 8 bits",
    Note.COLOUR_SPACE: "CMYK/YCbCr/Lab to RGB",
    Note.FRAMES: "first of several frames",
}


class Decoded(NamedTuple):
    """One file."""

    pixels: np.ndarray | None  # (C, H, W), the shorter side as asked for; None if it is no image
    digest: int  # 64 bits, of its bytes and, where they differ from version 2's, of how they were decoded
    notes: Note
    reason: str  # why it is no image


def decode_file(file: str, size: int, *, longest: int = 1, pixel_format: PixelFormat = RGB) -> Decoded:
    """Read one file and decode it: shorter side to size (bilinear), center crop.

    Args:
        longest: the longer side that is kept, as a multiple of the shorter one; 1 gives a square.
        pixel_format: of the pixels. An image file is converted to RGB; to another format, and from an .npy file, none
            is: a file that has another one is no image.

    Raises:
        ValueError: the file system fails, so that nothing is known about the file.
    """
    try:
        with open(file, "rb") as stream:
            content = stream.read()
    except PermissionError as error:
        return Decoded(None, 0, Note.CORRUPT, error.strerror or "")
    except OSError as error:
        raise ValueError(
            f"data.path holds a file that cannot be read now: {file!r} ({error.strerror}); check its disk, see that "
            "nothing changes the images, and start again"
        ) from error
    pixels, notes, reason = None, Note.CORRUPT, ""
    try:
        if content.startswith(_NUMPY):
            pixels, notes = _fitted(_array(content, pixel_format.channels), pixel_format, size, longest), Note(0)
        else:
            with Image.open(io.BytesIO(content), formats=_formats()) as image:
                if pixel_format == RGB:
                    pixels, notes = _resized(image, size, longest, content)
                else:
                    pixels, notes = _exact(image, pixel_format, size, longest, content)
    except UnidentifiedImageError:
        reason = "no known image format"
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (Pillow's plugins raise errors of every kind on damaged files)
        reason = " ".join(str(error).split()) or type(error).__name__
    person = _ALTERED_BY if notes & Note.ALTERED else _CORRUPT_FOR if notes & Note.CORRUPT else b""
    digest = hashlib.blake2b(content, digest_size=8, person=person).digest()
    return Decoded(pixels, int.from_bytes(digest, "little"), notes, reason)


@cache
def _formats() -> tuple[str, ...]:
    """Pillow's formats, by content: a file with the wrong suffix is decoded all the same."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_DECODED)


def _resized(image: Image.Image, size: int, longest: int, content: bytes) -> tuple[np.ndarray, Note]:
    """(3, H, W) uint8, and the conversions.

    Args:
        content: of the image's file.
    """
    notes = Note.FRAMES if getattr(image, "is_animated", False) else Note(0)  # before loading, which may close the file
    deep = _depth(image, content) > 8
    draft = image.draft("RGB", (round(_DRAFT * size), round(_DRAFT * size)))  # None unless a JPEG
    image.load()
    width, height = draft[1][2:] if draft else image.size  # may be fractional: the original size at that scale
    rgb, converted = _to_rgb(image)
    if deep and image.mode.startswith("RGB"):
        notes |= Note.DEEP_COLOUR
    resized = _resize(rgb, width, height, size, longest)
    turn = _turn_of(image)
    if turn is not None:  # the small image instead of the large one: crop and resize are symmetric
        resized, notes = resized.transpose(turn), notes | Note.TURNED | Note.ALTERED
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1)), notes | converted


def _resize(image: Image.Image, width: float, height: float, size: int, longest: int) -> Image.Image:
    """Crop and resize in one step: the longer side is not rounded to whole pixels before.

    Args:
        width, height: in pixels of the image; may be fractional.
    """
    side = min(width, height)
    wide, high = min(width, longest * side), min(height, longest * side)
    left, top = (width - wide) / 2, (height - high) / 2
    box = (left, top, left + wide, top + high)
    sides = max(size, int(size * wide / side)), max(size, int(size * high / side))  # rounded as by torchvision
    return image.resize(sides, Image.Resampling.BILINEAR, box=box)


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 (as in decode_file; the pixels are fine)
        return None


def _array(content: bytes, channels: int) -> np.ndarray:
    """Content of an .npy file as (C, H, W): H x W, H x W x channels or channels x H x W; never unpickled."""
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except MemoryError:
        raise ValueError("its header names a larger array than the file holds") from None
    if array.ndim == 2:
        return array[None]
    is_first, is_last = (array.ndim == 3 and array.shape[axis] == channels for axis in (0, -1))
    if is_first == is_last:  # neither, or both
        rule = f"of H x W, H x W x {channels} or {channels} x H x W"
        raise ValueError(f"an array of shape {array.shape} is not clearly one {rule}, as data.channels={channels} says")
    return array if is_first else np.moveaxis(array, -1, 0)


def _exact(image: Image.Image, wanted: PixelFormat, size: int, longest: int, content: bytes) -> tuple[np.ndarray, Note]:
    """As _resized, (C, H, W) of the wanted format, with the file's values. The pages of a TIFF are its channels.

    Raises:
        ValueError: pages or values that are no channels of 8 or 16 bits, or that Pillow would change.
    """
    frames = getattr(image, "n_frames", 1)
    pages = frames if image.format == "TIFF" else 1
    if pages > _MOST_CHANNELS:
        raise ValueError(f"{pages} pages, but an image has at most {_MOST_CHANNELS} channels")
    notes, found = Note.FRAMES if frames > pages else Note(0), []
    for page in range(pages):
        image.seek(page)
        depth, turn = _depth(image, content), _turn_of(image)
        image.load()
        of_mode = 8 if image.mode in _WHOLE else 16 if image.mode.startswith("I;16") else 0
        kind = ""
        if _is_white_0(image):
            kind = "a TIFF in which 0 is white"
        elif not of_mode:
            kind = f"Pillow's mode {image.mode}"
        elif depth != of_mode:
            kind = "bits per channel other than 8 or 16, or a largest value other than 255, which Pillow rescales"
        if kind:
            raise ValueError(f"{kind}: not read as 8 or 16 bits; store it as .npy")
        notes |= Note(0) if turn is None else Note.TURNED
        turned = image.format == "TIFF"  # by Pillow, as it loads it
        found.append(np.asarray(image if turn is None or turned else image.transpose(turn)))
    if len({(each.shape, each.dtype) for each in found}) > 1 or (pages > 1 and found[0].ndim > 2):
        raise ValueError(f"{pages} pages that differ in size or depth, or have several channels each")
    planes = np.moveaxis(found[0], -1, 0) if found[0].ndim > 2 else np.stack(found)
    return _fitted(planes, wanted, size, longest), notes


def _fitted(planes: np.ndarray, wanted: PixelFormat, size: int, longest: int) -> np.ndarray:
    """Planes (C, H, W) of the wanted format, resized as _resize does."""
    if planes.dtype.kind != "u" or planes.dtype.itemsize > 2:
        raise ValueError(f"values of {planes.dtype}; only uint8 and uint16 are read")
    found = PixelFormat(len(planes), 8 * planes.dtype.itemsize)
    if found != wanted:
        raise ValueError(f"{OTHER_FORMAT}{found.channels} data.bits={found.bits}, not {wanted}")
    _, height, width = planes.shape
    if not height * width:
        raise ValueError("it has no pixels")
    images = (Image.fromarray(plane.astype(np.float32)) for plane in planes)
    resized = [np.asarray(_resize(image, width, height, size, longest)) for image in images]
    return np.rint(np.stack(resized)).astype(wanted.dtype)


def _to_rgb(image: Image.Image) -> tuple[Image.Image, Note]:
    """A loaded image as 8-bit RGB."""
    if image.mode.startswith(("I", "F")):
        return _grey(image)
    if image.has_transparency_data:
        full = image.convert("RGBA")
        if full.getchannel("A").getextrema() != (255, 255):
            canvas = Image.new("RGBA", full.size, (*_BACKGROUND, 255))
            canvas.alpha_composite(full)
            return canvas.convert("RGB"), Note.TRANSPARENT | Note.ALTERED
    notes = Note.COLOUR_SPACE if image.mode in ("CMYK", "YCbCr", "LAB", "HSV") else Note(0)
    return image.convert("RGB"), notes


def _grey(image: Image.Image) -> tuple[Image.Image, Note]:
    """Grey of more than 8 bits, or of floating point."""
    values = np.asarray(image)
    grey, same = _scaled(values, image.mode == "F")
    notes = Note(0) if same else Note.DEEP_GREY | Note.ALTERED
    if _is_white_0(image):
        grey, notes = 255 - grey, notes | Note.DEEP_GREY | Note.ALTERED
    key = image.info.get("transparency")  # of a PNG: the value that is transparent
    if isinstance(key, int) and (values == key).any():
        grey[values == key] = _BACKGROUND[0]
        notes |= Note.TRANSPARENT | Note.ALTERED
    return Image.fromarray(grey).convert("RGB"), notes


def _scaled(values: np.ndarray, is_float: bool) -> tuple[np.ndarray, bool]:
    """Values (H, W) scaled to 8 bits, and True if that has changed none.

    The range that becomes 0 to 255 is the first that holds all finite values: 0 to 1 for floats, then 0 to 255 and the
    ranges of 10, 12, 14 and 16 bits, else from the smallest value to the largest. NaN is black.
    """
    finite = values[np.isfinite(values)] if is_float else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    ranges = (1, *_RANGES) if is_float else _RANGES
    most = next((most for most in ranges if low >= 0 and high <= most), None)
    start, length = (low, high - low) if most is None else (0.0, float(most))
    factor = np.float32(255 / (length or 1.0))
    scaled = np.nan_to_num((values.astype(np.float32) - np.float32(start)) * factor, nan=0, posinf=255, neginf=0)
    return np.rint(scaled).clip(0, 255).astype(np.uint8), most == 255 and not is_float


def _is_white_0(image: Image.Image) -> bool:
    """True for a TIFF in which 0 is white; Pillow inverts those of 8 bits, and leaves those of 16 as they are."""
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _depth(image: Image.Image, content: bytes) -> float:
    """Bits per channel in the file of an image that has not been loaded; 0 for fewer than 8."""
    if image.format == "JPEG2000":
        return (content[content.find(b"\xff\x4f\xff\x51") + 42] & 0x7F) + 1  # Ssiz of the first component
    if image.format == "AVIF":
        return 10 if content[content.find(b"av1C") + 6] & 0x40 else 8  # high_bitdepth
    tile = next(iter(getattr(image, "tile", ())), None)
    if tile is None:
        return 8
    layout, *others = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    if tile.codec_name.startswith("ppm") and others:
        return math.log2(others[0] + 1)  # the largest value in the file
    if image.mode.startswith("I;16"):
        return 15 if image.format == "FITS" else 16  # FITS: with a sign, which Pillow drops
    if str(layout).endswith((";16B", ";16L", ";16N")):
        return 16
    return 0 if re.search(r";\d", str(layout)) else 8
