"""Images of 1 to 16 channels and of 8 or 16 bits: decoding, folders without labels, normalization, and their views.

Run: python -m pytest tests/unit/data/test_pixel_formats.py
"""

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from folders_of_images import folder_config, pixels_of, write_folder
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.transforms.v2 import functional as tv
from view_forms import augmented, make_views, to_input

from jepa_train.base.errors import ConfigError
from jepa_train.base.seeds import generator
from jepa_train.config import DataConfig, ViewsConfig
from jepa_train.config.augmentation_presets import CHANNEL_VIEWS
from jepa_train.config.flat import cell_key, unflatten
from jepa_train.config.presets import PRESETS
from jepa_train.data.augment import parameters
from jepa_train.data.facts import facts_of
from jepa_train.data.files.decode import Note, decode_file
from jepa_train.data.files.listing import PixelFormat
from jepa_train.data.pictures import RGB_NORM, Shapes
from jepa_train.data.splits import identify, load_splits, read_images

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 2**16, (16, 16, 16), np.uint16)  # (channels, height, width), each value of its own
LOW = RNG.integers(0, 256, (16, 16, 16), np.uint8)
Write = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    load_splits.cache_clear()


def stack(path: Path, planes: np.ndarray, **options: object) -> None:
    first, *others = map(Image.fromarray, planes)
    first.save(path, save_all=True, append_images=others, **options)


def npy(values: np.ndarray) -> Write:
    return lambda path: np.save(path, values)


def upright(planes: np.ndarray) -> np.ndarray:
    return np.moveaxis(planes, 0, -1)


# name of a file -> how it is written, and the planes that it holds
EXACT: dict[str, tuple[Write, np.ndarray]] = {
    "1.tif": (lambda path: Image.fromarray(DEEP[0]).save(path), DEEP[:1]),
    "big_endian.tif": (lambda path: path.write_bytes(big_endian(DEEP[0], 16)), DEEP[:1]),
    "16_bits.png": (lambda path: Image.fromarray(DEEP[0]).save(path), DEEP[:1]),
    "stack_of_2.tif": (lambda path: stack(path, DEEP[:2]), DEEP[:2]),
    "stack_of_16.tif": (lambda path: stack(path, DEEP, compression="tiff_lzw"), DEEP),
    "stack_of_16_bytes.tiff": (lambda path: stack(path, LOW), LOW),
    "grey.png": (lambda path: Image.fromarray(LOW[0]).save(path), LOW[:1]),
    "two.png": (lambda path: Image.fromarray(upright(LOW[:2]), "LA").save(path), LOW[:2]),
    "four.tif": (lambda path: Image.fromarray(upright(LOW[:4]), "RGBA").save(path), LOW[:4]),
    "plane.npy": (npy(DEEP[0]), DEEP[:1]),
    "last.npy": (npy(upright(DEEP[:5])), DEEP[:5]),
    "first.npy": (npy(DEEP[:5]), DEEP[:5]),
    "colors.npy": (npy(upright(LOW[:3])), LOW[:3]),
    "big_endian.npy": (npy(DEEP[:2].astype(">u2")), DEEP[:2]),
    "fortran.npy": (npy(np.asfortranarray(upright(DEEP[:2]))), DEEP[:2]),
}


def big_endian(plane: np.ndarray, bits: int) -> bytes:
    """A TIFF of 16 x 16 px in Motorola's byte order, which Pillow reads and does not write."""
    size = [(278, 16), (279, 32 * bits)]
    tags = [(256, 16), (257, 16), (258, bits), (259, 1), (262, 1), (273, 8 + 2 + 8 * 12 + 4), *size]
    entries = b"".join(tag.to_bytes(2) + (4).to_bytes(2) + (1).to_bytes(4) + value.to_bytes(4) for tag, value in tags)
    return (
        b"MM\0*\0\0\0\x08" + len(tags).to_bytes(2) + entries + bytes(4) + plane.astype(f">u{plane.itemsize}").tobytes()
    )


@pytest.mark.parametrize("name", EXACT)
def test_a_file_of_the_wanted_format_keeps_every_value(name: str, tmp_path: Path) -> None:
    write, planes = EXACT[name]
    write(tmp_path / name)
    found = decode_file(str(tmp_path / name), 16, pixel_format=PixelFormat(len(planes), 8 * planes.itemsize))
    assert found.reason == ""
    assert found.notes == Note(0)
    assert found.pixels is not None
    assert found.pixels.dtype == planes.dtype.newbyteorder("<")
    assert np.array_equal(found.pixels, planes)


def test_images_are_resized_as_by_torch_and_turned(tmp_path: Path) -> None:
    values = RNG.integers(0, 2**16, (40, 60), np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(values).save(tmp_path / "a.tif", exif=exif)
    found = decode_file(str(tmp_path / "a.tif"), 20, pixel_format=PixelFormat(1, 16))
    middle = torch.from_numpy(values[:, 10:50].astype(np.float64))[None, None]
    resized = torch.nn.functional.interpolate(middle, size=(20, 20), mode="bilinear", antialias=True)[0]
    expected = resized.rot90(-1, (1, 2))
    assert found.notes == Note.TURNED
    inner = slice(1, -1)  # at the ends of the crop Pillow's filter reaches beyond it
    assert np.abs(found.pixels - expected.numpy())[:, inner, inner].max() <= 1
    whole = decode_file(str(tmp_path / "a.tif"), 20, longest=16, pixel_format=PixelFormat(1, 16)).pixels
    assert whole.shape == (1, 30, 20)


RESCALED = "bits per channel other than 8 or 16, or a largest value other than 255, which Pillow rescales: not read as"


REFUSED: dict[str, tuple[Write, PixelFormat, str]] = {
    "more.tif": (lambda path: stack(path, DEEP[:3]), PixelFormat(2, 16), "it has data.channels=3 data.bits=16, not 2 "),
    "low.tif": (lambda path: stack(path, LOW[:2]), PixelFormat(2, 16), "it has data.channels=2 data.bits=8, not 2 ch"),
    "deep.npy": (
        npy(upright(DEEP[:3])),
        PixelFormat(),
        "it has data.channels=3 data.bits=16, not 3 channels of 8 bits",
    ),
    "many.tif": (
        lambda path: stack(path, np.concatenate([LOW, LOW])),
        PixelFormat(16, 8),
        "32 pages, but an image has",
    ),
    "sizes.tif": (
        lambda path: Image.fromarray(LOW[0]).save(path, save_all=True, append_images=[Image.fromarray(LOW[0, :8])]),
        PixelFormat(2, 8),
        "2 pages that differ in size or depth",
    ),
    "colors.tif": (
        lambda path: stack(path, np.stack([upright(LOW[:3])] * 2)),
        PixelFormat(6, 8),
        "2 pages that differ in size",
    ),
    "float.tif": (
        lambda path: Image.fromarray(np.float32(DEEP[0])).save(path),
        PixelFormat(1, 16),
        "Pillow's mode F: n",
    ),
    "ints.tif": (
        lambda path: Image.fromarray(np.int32(DEEP[0])).save(path),
        PixelFormat(1, 16),
        "Pillow's mode I: not",
    ),
    "4_bits.tif": (lambda path: path.write_bytes(big_endian(LOW[0, :, :8], 4)), PixelFormat(1, 8), RESCALED),
    "4_bits.pgm": (lambda path: path.write_bytes(b"P5 16 16 15\n" + LOW[0].tobytes()), PixelFormat(1, 8), RESCALED),
    "plain.pgm": (lambda path: path.write_bytes(b"P2 2 1 200\n9 200"), PixelFormat(1, 8), RESCALED),
    "colors.ppm": (lambda path: path.write_bytes(b"P6 8 8 999\n" + LOW.tobytes()), PixelFormat(3, 16), RESCALED),
    "white_0.tif": (
        lambda path: Image.fromarray(LOW[0]).save(path, tiffinfo={262: 0}),
        PixelFormat(1, 8),
        "a TIFF in which 0 is white: not read as 8 or 16 bits; store it as .npy",
    ),
    "deep_white_0.tif": (
        lambda path: Image.fromarray(DEEP[0]).save(path, tiffinfo={262: 0}),
        PixelFormat(1, 16),
        "a TIFF in which 0 is white: not read as 8 or 16 bits; store it as .npy",
    ),
    "palette.png": (
        lambda path: Image.fromarray(LOW[0]).quantize(9).save(path),
        PixelFormat(1, 8),
        "Pillow's mode P: ",
    ),
    "float.npy": (npy(np.float32(DEEP[0])), PixelFormat(1, 16), "values of float32; only uint8 and uint16 are read"),
    "signed.npy": (npy(np.int16(LOW[0])), PixelFormat(1, 16), "values of int16; only uint8 and uint16 are read"),
    "objects.npy": (npy(np.array([[None, 1]])), PixelFormat(1, 8), "Object arrays cannot be loaded when allow_pickle"),
    "ambiguous.npy": (
        npy(LOW[:2, :, :2]),
        PixelFormat(2, 8),
        "an array of shape (2, 16, 2) is not clearly one of H x W",
    ),
    "other.npy": (
        npy(LOW[:5]),
        PixelFormat(2, 8),
        "an array of shape (5, 16, 16) is not clearly one of H x W, H x W x 2",
    ),
    "line.npy": (
        npy(LOW[0, 0]),
        PixelFormat(1, 8),
        "an array of shape (16,) is not clearly one of H x W, H x W x 1 or",
    ),
    "empty.npy": (npy(LOW[0, :0]), PixelFormat(1, 8), "it has no pixels"),
    "cut.npy": (lambda path: path.write_bytes(b"\x93NUMPY\x01\0"), PixelFormat(1, 8), "EOF: "),
    "huge.npy": (
        lambda path: np.lib.format.write_array_header_1_0(
            path.open("wb"), {"descr": "|u1", "fortran_order": False, "shape": (2**24, 2**24)}
        ),
        PixelFormat(1, 8),
        "",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_another_format_is_no_image_and_says_why(name: str, tmp_path: Path) -> None:
    write, wanted, reason = REFUSED[name]
    write(tmp_path / name)
    found = decode_file(str(tmp_path / name), 16, pixel_format=wanted)
    assert (found.pixels, found.notes) == (None, Note.CORRUPT)
    assert found.reason.startswith(reason)
    assert found.reason
    assert "\n" not in found.reason


def unlabelled(path: Path | str, **fields: object) -> DataConfig:
    return DataConfig(name="unlabelled_folder", path=str(path), **{"image_size": 8, "val_frac": 0.25} | fields)


def write_deep(root: Path, count: int = 12, channels: int = 2) -> Path:
    """TIFF stacks and arrays of 16 bits, in the folder and below it."""
    (root / "a" / "train").mkdir(parents=True)
    values = np.random.default_rng(1).integers(0, 4096, (count, channels, 8, 8), np.uint16)
    for number, planes in enumerate(values):
        folder = (root, root / "a", root / "a" / "train")[number % 3]
        stack(folder / f"{number:02}.tif", planes) if number % 2 else np.save(folder / f"{number:02}.npy", planes)
    return root


def test_every_file_without_a_label_is_used_rejected_or_counted(tmp_path: Path) -> None:
    root = write_deep(tmp_path / "cells")
    (root / "a" / "notes.txt").write_text("no image")
    (root / ".hidden.tif").write_bytes(b"")
    (root / "b.tif").write_bytes(b"no image")
    (root / "again").symlink_to(root)
    config = unlabelled(root, channels=2, bits=16, test_frac=0.25, on_corrupt="skip")
    facts = facts_of(*read_images(config, keep=True))
    assert facts is not None
    assert facts.sizes == {"train": 7, "val": 2, "test": 3}
    assert str(facts) == (
        f"{root}: 12 images without labels (train 7, val 2, test 3); 2 channels of 16 bits; 1 corrupt; not used: "
        "1 *.txt (a/notes.txt), 1 hidden (.hidden.tif), 1 link to a folder above it (again)"
    )
    assert facts.tags["data.images"] == "12"
    assert "data.classes" not in facts.tags
    splits, files = load_splits(config), sum(len(names) for _, _, names in os.walk(root))
    assert files == sum(facts.sizes.values()) + splits.skipped + 2
    parts = [pixels_of(part) for part in (splits.train, splits.val, splits.test)]
    assert len(torch.cat(parts).flatten(1).long().unique(dim=0)) == 12
    assert parts[0].dtype == torch.uint16
    load_splits.cache_clear()
    assert torch.equal(pixels_of(load_splits(config).val).long(), parts[1].long())
    assert splits.classes == ()


def test_the_normalization_is_that_of_the_training_images_alone(tmp_path: Path) -> None:
    config = unlabelled(write_deep(tmp_path / "cells"), channels=2, bits=16, test_frac=0.25)
    splits = load_splits(config)
    values = pixels_of(splits.train).numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(2, -1) / 65535
    factor, offset = splits.train.norm.double().numpy()
    np.testing.assert_allclose(factor, 1 / values.std(1), rtol=1e-6)
    np.testing.assert_allclose(offset, -values.mean(1) / values.std(1), rtol=1e-6)
    assert all(torch.equal(part.norm, splits.train.norm) for part in (splits.val, splits.test))
    x = to_input(pixels_of(splits.train), 8, norm=splits.train.norm).transpose(0, 1).flatten(1)
    torch.testing.assert_close(x.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(1, correction=0), torch.ones(2))
    whole = load_splits(dataclasses.replace(config, fit="whole")).train.norm
    torch.testing.assert_close(whole, splits.train.norm)  # the files are squares


def test_rgb_keeps_its_normalization_names_and_keys(tmp_path: Path) -> None:
    """A folder of RGB images has the identity that it had before other formats, also with arrays beside them."""
    folder = write_folder(tmp_path / "insects")
    before, _ = identify(folder_config(folder))
    np.save(folder / "train" / "ant" / "features.npy", LOW[0])
    assert identify(folder_config(folder))[0] == before
    assert identify(folder_config(folder))[1].unused == {"*.npy": (1, "train/ant/features.npy")}
    assert load_splits(folder_config(folder)).train.norm is RGB_NORM
    base = unflatten({"data.name": "image_folder", "data.fingerprint": "ab"}, base=PRESETS["image_folder"])
    assert cell_key(base) == "93b13dbfe822e16e"  # of the version before
    for field, value in (("data.channels", 1), ("data.bits", 16)):
        changed = {"views.saturation": 0.0, "views.hue": 0.0, "views.grayscale": 0.0, "views.solarize": 0.0}
        assert cell_key(unflatten({field: value} | changed, base=base)) != cell_key(unflatten(changed, base=base))


def test_one_folder_has_an_identity_for_each_format_and_labelled_images_too(tmp_path: Path) -> None:
    root = tmp_path / "labelled"
    for label in ("a", "b"):
        write_deep(root / label, 6)
    found = [read_images(folder_config(root, channels=2, bits=bits, on_corrupt="skip"), keep=False) for bits in (16,)]
    assert found[0][1].labels[0].bincount().tolist() == [6, 6]
    rgb = read_images(unlabelled(root, on_corrupt="skip"), keep=False)
    assert rgb[1].converted == {"deep grey to 8 bits": 6, "first of several frames": 6}
    assert str(facts_of(*rgb)).endswith(
        "6 first of several frames (data.channels and data.bits, as in the files, keep the values; .npy those of three "
        "pages of 8 bits)"
    )
    assert (rgb[1].skipped, rgb[1].classes) == (6, ())
    assert rgb[0].fingerprint != found[0][0].fingerprint
    with pytest.raises(
        ConfigError,
        match=r"holds an image of another format: '.*cells/00.npy' \(it has data.channels=2 data.bits=16, not 2 ",
    ):
        read_images(unlabelled(write_deep(tmp_path / "cells"), channels=2), keep=True)


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        ({}, {}, "data.path must hold at least 2 images: it has 0, got '{}'; set data.path=DIR"),
        (
            {"a.png": b"", "x.csv": b""},
            {},
            "data.path must hold at least 2 images: it has 1 (not used: 1 *.csv), got '{}'; set data.path=DIR",
        ),
        (
            {"a.png": b"", "b.npy": b""},
            {"on_corrupt": "skip"},
            "data.path must hold at least 2 images that can be read, got '{}', where a.png cannot; replace it",
        ),
        (
            {"a.png": b"", "b.npy": b""},
            {},
            "data.path holds a file that cannot be read as an image: '{}/a.png' (no known image format); delete or "
            "replace it, or set data.on_corrupt=skip",
        ),
    ],
    ids=["empty", "one", "none readable", "corrupt"],
)
def test_folders_without_images_are_refused_in_one_line(
    files: dict[str, bytes], fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    root = tmp_path / "cells"
    root.mkdir()
    for name, content in files.items():
        (root / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_images(unlabelled(root, **fields), keep=True)
    assert str(caught.value) == message.format(root)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.channels": 17}, "data.channels must be 1 to 16, got 17; 3 is RGB"),
        ({"data.bits": 12}, "data.bits must be 8 or 16, got 12; 8 is the default"),
        (
            {"data.channels": 2, "views.hue": 0.1},
            "views.hue must be 0 for data.channels=2, got 0.1; it needs 3 colors, so set views.hue=0",
        ),
        (
            {"data.bits": 16, "views.solarize": 0.2},
            "views.solarize must be 0 for data.bits=16, got 0.2; it inverts what exceeds half of the range, which few "
            "fill, so set views.solarize=0",
        ),
    ],
)
def test_fields_that_do_not_fit_are_refused_in_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        unflatten(fields, base=PRESETS["unlabelled_folder"])
    assert str(caught.value) == message


# operations that take uint16 on a GPU
WITH_KERNELS = {
    "_to_copy",
    "alias",
    "clone",
    "index_select",
    "permute",
    "slice",
    "transpose",
    "view",
    "_unsafe_view",
    "detach",
}


class OnlyWithKernels(TorchDispatchMode):
    """Fails where an operation without a kernel for uint16 on a GPU gets such a tensor."""

    def __torch_dispatch__(self, operation, kinds, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        deep = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dtype == torch.uint16]
        assert not deep or name in WITH_KERNELS, name
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("fit", ["square", "whole"])
def test_images_of_16_bits_need_no_operation_that_a_gpu_lacks(fit: str, tmp_path: Path) -> None:
    """torch.where has no kernel of CUDA for uint16; index_select and conversions have."""
    train = load_splits(unlabelled(write_deep(tmp_path / "cells"), channels=2, bits=16, fit=fit)).train
    config = dataclasses.replace(CHANNEL_VIEWS, global_size=8)
    with OnlyWithKernels():
        batch, _ = train.batch(torch.arange(4))
        make_views(batch, config, batch=slice(0, 4), global_batch=4)
        to_input(batch, 8)


def made(count: int, channels: int, side: int = 16) -> torch.Tensor:
    """(count, channels, side, side) uint16 of the whole range."""
    draws = torch.randint(0, 2**16, (count, channels, side, side), generator=generator("deep", channels))
    return draws.to(torch.uint16)


VIEWS = dataclasses.replace(
    CHANNEL_VIEWS, num_local=1, global_size=12, local_size=8, jitter=1.0, solarize=0.5, blur=0.3
)


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_views_of_16_bits_are_those_of_the_same_values_in_8(channels: int) -> None:
    low = (made(4, channels).int() // 257).to(torch.uint8)
    deep = (low.int() * 257).to(torch.uint16)
    norm = RGB_NORM[:, :1].repeat(1, channels)
    views = [make_views(x, VIEWS, seed=0, step=0, batch=slice(0, 4), global_batch=4, norm=norm) for x in (low, deep)]
    for small, large in zip(*views, strict=True):
        assert small.shape[2] == channels
        torch.testing.assert_close(small, large, rtol=0, atol=1e-5)
    torch.testing.assert_close(to_input(low, 9, norm=norm), to_input(deep, 9, norm=norm), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_channel_is_changed_as_a_grey_image_of_its_own(channels: int) -> None:
    images = made(3, channels)
    draws = torch.rand(3, 32, generator=generator("draws"), dtype=torch.float64)
    sides = [torch.full((3,), 16.0, dtype=torch.float64)] * 2
    values = parameters(draws, VIEWS, scale=(1.0, 1.0), sides=sides)
    values = values._replace(top=0 * sides[0], left=0 * sides[0], height=sides[0], width=sides[0])
    views = augmented(images, values, size=16, norm=RGB_NORM[:, :1].repeat(1, channels))[0]
    for view, image, number in ((views[n, c], images[n, c], n) for n in range(3) for c in range(channels)):
        x = image[None].double() / 65535
        x = tv.horizontal_flip(x) if values.flip[number] else x
        x = tv.adjust_brightness(x, values.brightness[number].item())
        x = tv.adjust_contrast(x, values.contrast[number].item())
        x = tv.gaussian_blur(x, [3, 3], [values.blur[number].item()] * 2) if values.blur[number] else x
        x = torch.where(x >= 0.5, 1 - x, x) if values.solarize[number] < 1 else x
        torch.testing.assert_close(view.double(), 4 * x[0] - 2, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, torch.uint8), (1, torch.uint16), (3, torch.uint16), (16, torch.uint16)]
)
def test_the_kernel_makes_the_same_views_of_any_format(channels: int, dtype: torch.dtype) -> None:
    pytest.importorskip("triton")
    images = made(1, channels, 8) if dtype is torch.uint16 else (made(1, channels, 8).int() % 256).to(dtype)
    config = ViewsConfig(jitter=1.0, flip=0.5)
    draws = torch.rand(1, 32, generator=generator("kernel"), dtype=torch.float64)
    shapes = Shapes.of(1, 8)
    values = parameters(draws, config, scale=(0.3, 1.0), sides=[shapes.heights, shapes.widths])
    values = values._replace(solarize=torch.full((1,), math.inf))
    norm = torch.stack([torch.linspace(2, 9, channels), torch.linspace(-3, 1, channels)])
    expected = augmented(images, values, size=6, norm=norm)
    found = augmented(images.to(DEVICE), values, size=6, form="fused", norm=norm).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert torch.equal(augmented(images, values, size=6, form="static", norm=norm), expected)
