"""Image files of many kinds for tests, each written by a function that takes its path; and files that are no images."""

import base64
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, features

Write = Callable[[Path], object]

RAMP = np.linspace(0, 1, 24 * 16).reshape(16, 24)  # grey, dark to bright
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)  # (16, 24, 3): its four corners differ


def rgb() -> Image.Image:
    return Image.fromarray((255 * COLOUR).round().astype(np.uint8))


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values)


def deep(most: int) -> Image.Image:
    """16-bit grey from 0 to a largest value."""
    return grey((most * RAMP).round().astype(np.uint16))


def half_clear(mode: str = "RGBA") -> Image.Image:
    """An image whose left half is transparent."""
    image = rgb().convert("RGBA")
    alpha = np.full((16, 24), 255, np.uint8)
    alpha[:, :12] = 0
    image.putalpha(Image.fromarray(alpha))
    return image.convert(mode)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write_deep_png(path: Path, values: np.ndarray) -> None:
    """A PNG of 16 bits per channel, which Pillow cannot write: (16, 24, 2) grey and alpha, or (16, 24, 3) color."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 24, 16, 16, {2: 4, 3: 2}[values.shape[2]], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )


def write_deep_jpeg2000(path: Path) -> None:
    """A file of 12 bits per color, which Pillow cannot write: one of 8 bits with other depths in its header."""
    rgb().save(path, no_jp2=True)
    content = bytearray(path.read_bytes())
    content[42], content[45], content[48] = 11, 11, 11  # Ssiz of the three components
    path.write_bytes(content)


# 24 x 16 px of one color of 10 bits, by libavif
_DEEP_AVIF = (
    "c-muNU{FXasVqn=%S>Yc0uY^>nP!-qnV9D5Xy^zOdYzkElE?r7iWw<6MNl?FL1uCZ0~+8f$SlbPvlxL`E;A=T8N_h`@fjhajKV-#"
    "8HhD9GxO5mYNddjR3<1dvCP2GIX@>KY*$uhK~Vva_RcIw&Ii&WnZ*UEQ2Qi+SOA0zGAlAc0?b@oTtJE^vCPo9QNaNuB%GX|Q<RsS"
    "Q^CLlglr8!A@R(DT$rDL4r5_tYGwg4wR2MvON1D>I4lI-zfEv(xMU<M>6FZJ<g%}^qYA_ILN(9%tlcX29{>O&#yG4"
)
_AVIF: dict[str, Write] = {
    "a.avif": lambda path: rgb().save(path),
    "10_colour.avif": lambda path: path.write_bytes(zlib.decompress(base64.b85decode(_DEEP_AVIF))),
}


def write_frames(path: Path) -> None:
    rgb().save(path, save_all=True, append_images=[rgb().rotate(180)])


# file name -> how to write it; each is an image
IMAGES: dict[str, Write] = {
    "plain.png": lambda path: rgb().save(path),
    "plain.jpg": lambda path: rgb().save(path, quality=95),
    "UPPER.JPEG": lambda path: rgb().save(path),
    "grey.png": lambda path: rgb().convert("L").save(path),
    "one_bit.png": lambda path: rgb().convert("1").save(path),
    "palette.png": lambda path: rgb().quantize(16).save(path),
    "palette_clear.png": lambda path: rgb().quantize(16).save(path, transparency=0),
    "clear.png": lambda path: half_clear().save(path),
    "grey_clear.png": lambda path: half_clear("LA").save(path),
    "opaque.png": lambda path: rgb().convert("RGBA").save(path),
    "key_clear.png": lambda path: rgb().save(path, transparency=(0, 0, 0)),
    "16.png": lambda path: deep(65535).save(path),
    "12_in_16.tif": lambda path: deep(4095).save(path),
    "16_packed.tiff": lambda path: deep(65535).save(path, compression="tiff_lzw"),
    "16.pgm": lambda path: deep(65535).save(path),
    "16.jp2": lambda path: deep(65535).save(path),
    "ints.tif": lambda path: grey((RAMP * 100_000 - 500).astype(np.int32)).save(path),
    "floats.tif": lambda path: grey(RAMP.astype(np.float32)).save(path),
    "floats.pfm": lambda path: grey((RAMP * 9 - 3).astype(np.float32)).save(path),
    "16_grey_alpha.png": lambda path: write_deep_png(path, 65535 * np.stack([RAMP.round(4), 0 * RAMP + 1], axis=2)),
    "16_colour.png": lambda path: write_deep_png(path, (65535 * COLOUR).round()),
    "16_colour.ppm": lambda path: path.write_bytes(b"P6 24 16 4095\n" + (4095 * COLOUR).astype(">u2").tobytes()),
    "cmyk.jpg": lambda path: rgb().convert("CMYK").save(path),
    "ycbcr.tif": lambda path: rgb().convert("YCbCr").save(path),
    "lab.tif": lambda path: Image.new("LAB", (24, 16), (150, 10, 200)).save(path),
    "turned.jpg": lambda path: rgb().save(path, exif=oriented(6)),
    "turned.png": lambda path: rgb().save(path, exif=oriented(3)),
    "12_colour.j2k": write_deep_jpeg2000,
    "bad_exif.jpg": lambda path: rgb().save(path, exif=b"Exif\0\0" + 9 * b"nonsense"),
    "bad_exif.webp": lambda path: rgb().save(path, exif=b"Exif\0\0" + 9 * b"nonsense"),
    "frames.gif": write_frames,
    "frames.png": write_frames,
    "frames.tif": write_frames,
    "frames.webp": write_frames,
    "a.bmp": lambda path: rgb().save(path),
    "a.ppm": lambda path: rgb().save(path),
    "a.tga": lambda path: rgb().save(path),
    "a.ico": lambda path: rgb().save(path),
    "a.sgi": lambda path: rgb().save(path),
    "wrong_suffix.png": lambda path: rgb().save(path, format="GIF"),
    **(_AVIF if features.check("avif") else {}),
}


def _cut(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])


# names of images whose content is none
CORRUPT: dict[str, Write] = {
    "empty.jpg": lambda path: path.write_bytes(b""),
    "text.PNG": lambda path: path.write_text("not an image"),
    "cut.png": _cut,
    "cut.jpg": _cut,
    "cut.tif": _cut,
    "postscript.jpg": lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "huge.png": lambda path: path.write_bytes(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0) + b"\0" * 30
    ),
    "odd.dds": lambda path: path.write_bytes(b"DDS " + struct.pack("<I", 124) + b"\1" * 120),
}
