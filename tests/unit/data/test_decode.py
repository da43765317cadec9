"""Decoding of every kind of file: modes, bit depths, transparency, orientation, and files that are no images.

References: torchvision's resize and center crop, Pillow's exif_transpose, and version 2 of the decoder for plain files.

Run: python -m pytest tests/unit/data/test_decode.py
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_images import COLOUR, CORRUPT, IMAGES, RAMP, deep, grey, half_clear, oriented, rgb
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2 import functional as tv

from jepa_train.data.files.decode import Note, decode_file


@pytest.mark.parametrize("shape", [(32, 64), (72, 48), (33, 33), (8, 16)])  # the longer side stays whole at 16 px
def test_decoding_is_torchvisions_resize_and_centre_crop(shape, tmp_path):
    noise = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(1))
    smooth = tv.resize(noise, list(shape)).mul(255).byte()
    tv.to_pil_image(smooth).save(tmp_path / "colour.png")
    tv.to_pil_image(smooth).convert("LA").save(tmp_path / "grey.png")
    colour, grey = (
        torch.tensor(decode_file(f"{tmp_path}/{name}.png", 16).pixels.copy()) for name in ("colour", "grey")
    )
    expected = tv.center_crop(tv.resize(smooth, [16], antialias=True), [16, 16])
    assert (colour.int() - expected.int()).abs().max() <= 1
    expected = tv.rgb_to_grayscale(expected, num_output_channels=3)
    assert (grey.int() - expected.int()).abs().max() <= 2


def test_large_jpegs_are_decoded_small_with_hardly_a_difference(tmp_path, monkeypatch):
    """A photograph of 1,649 px, with grain, against the whole image resized: mean 1 level of 255, 99 % in 6."""
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *words, **more: opened.append(real(*words, **more)) or opened[-1])
    grain = np.random.default_rng(0).normal(0, 8, (1100, 1649, 3))
    photo = Image.fromarray(load_sample_images().images[0]).resize((1649, 1100), Image.Resampling.BICUBIC)
    file = tmp_path / "photo.jpg"
    Image.fromarray((np.asarray(photo) + grain).clip(0, 255).astype(np.uint8)).save(file, quality=75, subsampling=2)
    got = decode_file(str(file), 100).pixels
    assert max(opened[-1].size) <= 1649 / 2 + 1  # the whole was never decoded
    square = real(file).resize((100, 100), Image.Resampling.BILINEAR, box=(274.5, 0, 1374.5, 1100))
    difference = np.abs(got.transpose(1, 2, 0).astype(int) - np.asarray(square))
    assert difference.mean() < 1
    assert np.quantile(difference, 0.99) <= 6


def version_2(path: Path, size: int) -> np.ndarray:
    """The pixels that files had before version 3: every mode converted by Pillow, orientation ignored."""
    with Image.open(path) as image:
        draft = image.draft("RGB", (2 * size, 2 * size))
        width, height = draft[1][2:] if draft else image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box))


CONVERTED = {
    "palette_clear.png": Note.TRANSPARENT,
    "clear.png": Note.TRANSPARENT,
    "grey_clear.png": Note.TRANSPARENT,
    **dict.fromkeys(("16.png", "12_in_16.tif", "16_packed.tiff", "16.pgm", "16.jp2"), Note.DEEP_GREY),
    **dict.fromkeys(("ints.tif", "floats.tif", "floats.pfm"), Note.DEEP_GREY),
    "turned.jpg": Note.TURNED,
    "turned.png": Note.TURNED,
}
COUNTED = {
    **dict.fromkeys(("16_colour.png", "16_colour.ppm", "12_colour.j2k", "10_colour.avif"), Note.DEEP_COLOUR),
    "16_grey_alpha.png": Note.DEEP_COLOUR,
    **dict.fromkeys(("cmyk.jpg", "ycbcr.tif", "lab.tif"), Note.COLOUR_SPACE),
    **dict.fromkeys(("frames.gif", "frames.png", "frames.tif", "frames.webp"), Note.FRAMES),
}


def plain_digest(path: Path) -> int:
    return int.from_bytes(hashlib.blake2b(path.read_bytes(), digest_size=8).digest(), "little")


@pytest.mark.parametrize("name", IMAGES)
def test_a_file_keeps_its_pixels_and_digest_unless_this_version_alters_it(name: str, tmp_path: Path):
    path = tmp_path / name
    IMAGES[name](path)
    found = decode_file(str(path), 16)
    altered = name in CONVERTED
    assert found.notes == CONVERTED.get(name, Note(0)) | COUNTED.get(name, Note(0)) | (Note.ALTERED if altered else 0)
    assert found.pixels is not None
    assert np.array_equal(found.pixels.transpose(1, 2, 0), version_2(path, 16)) != altered
    assert (found.digest == plain_digest(path)) != altered


@pytest.mark.parametrize("name", CORRUPT)
def test_a_file_that_is_no_image_has_a_reason(name: str, tmp_path: Path):
    CORRUPT[name](tmp_path / name)
    found = decode_file(str(tmp_path / name), 16)
    assert (found.pixels, found.notes) == (None, Note.CORRUPT)
    assert found.reason
    assert "\n" not in found.reason
    assert found.digest != plain_digest(tmp_path / name), "other data than where a decoder can read it"


def test_a_disk_that_fails_is_no_corrupt_image(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"^data\.path holds a file that cannot be read now: .*gone\.png' \(No such file"
    ):
        decode_file(str(tmp_path / "gone.png"), 16)


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.uint16([0, 30_000, 65_535]), [0, 117, 255]),
        (np.uint16([0, 2_000, 4_095]), [0, 125, 255]),  # 12 bits in 16
        (np.uint16([0, 500, 1_000]), [0, 125, 249]),
        (np.uint16([0, 9, 255]), [0, 9, 255]),  # 8 bits in 16
        (np.int32([-300, 0, 700]), [0, 76, 255]),
        (np.int32([0, 50_000, 100_000]), [0, 128, 255]),
        (np.int32([-7, -7, -7]), [0, 0, 0]),
        (np.float32([0, 0.25, 0.5]), [0, 64, 128]),
        (np.float32([0, 100, 255]), [0, 100, 255]),
        (np.float32([-1, 0, 3]), [0, 64, 255]),
        (np.float32([0, NAN, 1]), [0, 0, 255]),
        (np.float32([-INF, 0.5, INF]), [0, 128, 255]),
        (np.float32([NAN, NAN, NAN]), [0, 0, 0]),
    ],
)
def test_deep_grey_is_scaled_from_the_smallest_range_that_holds_it(values, expected, tmp_path):
    grey(np.repeat(values[None], 3, axis=0)).save(tmp_path / "a.tif")
    found = decode_file(str(tmp_path / "a.tif"), 3).pixels
    assert found.tolist() == [[expected] * 3] * 3


def test_12_bit_and_16_bit_files_of_a_picture_are_equal(tmp_path):
    for most in (4095, 65535):
        deep(most).save(tmp_path / f"{most}.png")
    ramp = np.rint(255 * RAMP[:, 4:20])
    for most in (4095, 65535):
        assert np.abs(decode_file(str(tmp_path / f"{most}.png"), 16).pixels - ramp).max() <= 1


def test_deep_grey_of_which_0_is_white_is_inverted(tmp_path):
    deep(4095).save(tmp_path / "a.tif", tiffinfo={262: 0})
    found = decode_file(str(tmp_path / "a.tif"), 16).pixels
    assert np.abs(found - np.rint(255 * (1 - RAMP[:, 4:20]))).max() <= 1


def test_transparent_pixels_are_white(tmp_path):
    half_clear().save(tmp_path / "a.png")
    half_clear("LA").save(tmp_path / "b.png")
    deep(65535).save(tmp_path / "c.png", transparency=65535)
    for name in "ab":
        assert (decode_file(f"{tmp_path}/{name}.png", 16).pixels[:, :, :8] == 255).all()
        assert (decode_file(f"{tmp_path}/{name}.png", 16).pixels[:, :, 8:] < 255).all()
    found = decode_file(f"{tmp_path}/c.png", 16)
    assert found.notes == Note.DEEP_GREY | Note.TRANSPARENT | Note.ALTERED
    shade = Image.fromarray((255 * COLOUR).round().astype(np.uint8)).convert("RGBA")
    shade.putalpha(51)  # a fifth of the color, four fifths of white
    shade.save(tmp_path / "d.png")
    expected = 0.2 * (255 * COLOUR[:, 4:20]) + 0.8 * 255
    assert np.abs(decode_file(f"{tmp_path}/d.png", 16).pixels.transpose(1, 2, 0) - expected).max() <= 1.5


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(orientation, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    rgb().save(path, exif=oriented(orientation), **lossless)
    ImageOps.exif_transpose(Image.open(path)).save(tmp_path / "upright.png", exif=b"")
    found, expected = decode_file(str(path), 16), decode_file(f"{tmp_path}/upright.png", 16).pixels
    assert np.abs(found.pixels.astype(int) - expected).max() <= 1
    assert (Note.TURNED in found.notes) == (orientation > 1 and suffix != "tif")  # Pillow itself turns TIFF
