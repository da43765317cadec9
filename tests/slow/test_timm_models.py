"""Every encoder of timm, at two sizes, on the meta device: it gives one vector per image, or is refused in one line.

Run: python -m pytest tests/slow/test_timm_models.py
"""

import os
import re
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import timm
import torch

from jepa_train.base.errors import ConfigError
from jepa_train.config import ModelConfig, TrainConfig, ViewsConfig
from jepa_train.model.network import feature_widths, weights_report
from jepa_train.model.weights import planned_weights

BOTH = ViewsConfig(num_global=2, num_local=2, global_size=224, local_size=32)
ALONE = ViewsConfig(num_global=2, global_size=32)  # where 224 px are refused


def prepare() -> None:
    """Start a process: without random initial weights, which the meta device has not, in half the time."""
    warnings.simplefilter("ignore")  # timm's, about names that have been replaced
    torch.set_num_threads(1)
    for name in ("normal_", "uniform_", "erfinv_"):
        setattr(torch.Tensor, name, lambda self, *_, **__: self)


def outcome(name: str) -> str:
    """ "fits" at one size at least, "refused" at both, or any other error as text."""
    for views in (BOTH, ALONE):
        try:
            widths = feature_widths(TrainConfig(model=ModelConfig(encoder=name, small_stem=False), views=views))
            return "fits" if min(widths) > 0 else f"{name}: {widths}"
        except ConfigError as error:
            if "\n" in str(error) or f"_size must fit {name}, got " not in str(error):
                return f"{name}: {error}"
            if "views.local_size" in str(error):
                return "fits"
        except Exception as error:  # noqa: BLE001 (what is sought)
            return f"{name}: {error!r}"
    return "refused"


def test_every_encoder_fits_or_is_refused_in_one_line() -> None:
    names = timm.list_models()
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), prepare) as pool:
        found = Counter(pool.map(outcome, names, chunksize=8))
    fits, refused = found.pop("fits"), found.pop("refused")
    assert [*found] == []
    assert fits > 0.9 * len(names), f"{refused} of {len(names)} are refused"


PRETRAINED = [  # tags of many families, at sizes and patches other than their own
    ("resnet50.a1_in1k", 224, {}),
    ("vit_small_patch16_224.dino", 224, {}),
    ("vit_small_patch16_224.augreg_in1k", 64, {"patch_size": 8}),
    ("vit_small_patch14_dinov2.lvd142m", 98, {}),
    ("vit_base_patch16_224.mae", 224, {}),
    ("vit_base_patch16_clip_224.openai", 224, {}),
    ("convnext_tiny.fb_in22k", 64, {}),
    ("swin_tiny_patch4_window7_224.ms_in1k", 224, {}),
    ("mobilenetv3_large_100.ra_in1k", 64, {}),
]


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("name", "size", "options"), PRETRAINED)
def test_pretrained_weights_of_timm_load_whole(name: str, size: int, options: dict[str, int], channels: int) -> None:
    """By their names and shapes, without a download."""
    encoder, tag = name.split(".")
    model = ModelConfig(encoder=encoder, weights=tag, small_stem=False, **options)
    assert planned_weights(model)[0] == tag
    report = weights_report(model, size, channels)
    loaded, wanted = re.match(r"(\d+) of (\d+) tensors loaded", report).groups()
    assert loaded == wanted, report
