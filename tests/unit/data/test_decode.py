"""Decoding against torchvision's resize and center crop, and the error of decoding large JPEGs at a reduced size.

Run: python -m pytest tests/unit/data/test_decode.py
"""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2 import functional as tv

from jepa_train.data.decode import decode_images


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))


@pytest.mark.parametrize("shape", [(32, 64), (72, 48), (33, 33), (8, 16)])  # the longer side stays whole at 16 px
def test_decoding_is_torchvisions_resize_and_centre_crop(shape, tmp_path):
    noise = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(1))
    smooth = tv.resize(noise, list(shape)).mul(255).byte()
    tv.to_pil_image(smooth).save(tmp_path / "colour.png")
    tv.to_pil_image(smooth).convert("LA").save(tmp_path / "grey.png")
    files = [f"{tmp_path}/colour.png", f"{tmp_path}/grey.png"]
    colour, grey = decode_images(files, name="shapes", size=16, skip_corrupt=False)[0]
    expected = tv.center_crop(tv.resize(smooth, [16], antialias=True), [16, 16])
    assert (colour.int() - expected.int()).abs().max() <= 1
    expected = tv.rgb_to_grayscale(expected, num_output_channels=3)
    assert (grey.int() - expected.int()).abs().max() <= 2


def test_large_jpegs_are_decoded_small_with_hardly_a_difference(tmp_path, monkeypatch):
    """A photograph of 1,649 px, with grain, against the whole image resized: mean 1 level of 255, 99 % in 6."""
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(real(file)) or opened[-1])
    grain = np.random.default_rng(0).normal(0, 8, (1100, 1649, 3))
    photo = Image.fromarray(load_sample_images().images[0]).resize((1649, 1100), Image.Resampling.BICUBIC)
    file = tmp_path / "photo.jpg"
    Image.fromarray((np.asarray(photo) + grain).clip(0, 255).astype(np.uint8)).save(file, quality=75, subsampling=2)
    got, _ = decode_images([str(file)], name="photo", size=100, skip_corrupt=False)
    assert max(opened[-1].size) <= 1649 / 2 + 1  # the whole was never decoded
    square = real(file).resize((100, 100), Image.Resampling.BILINEAR, box=(274.5, 0, 1374.5, 1100))
    difference = np.abs(got[0].numpy().transpose(1, 2, 0).astype(int) - np.asarray(square))
    assert difference.mean() < 1
    assert np.quantile(difference, 0.99) <= 6
