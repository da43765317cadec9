"""LeJEPA, Table 5: pre-training and evaluation on one data set, also small ones; best of some settings by val.

At the paper's scale data/flowers102 and the others are folders of images: DIR/train/<class>/*, DIR/test/<class>/*.
Expect 64 to 93 %, and on galaxy10 more than from a far larger encoder transferred from ImageNet.
"""

import dataclasses
import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale
from sweeps.engine import Sweep, main

ENCODERS = {
    "mini": ("test_resnet", "test_efficientnet"),
    "small": ("test_resnet", "test_efficientnet"),
    "lab": ("resnet18", "resnet34"),
    "paper": ("convnextv2_nano", "resnet18", "resnet34", "resnext26ts", "swin_tiny_patch4_window7_224"),
}
DATA: dict[Scale, dict[str, tuple[str, ...]]] = {
    "mini": {"data.name": ("digits_0_4", "digits_5_9", "digits")},
    "small": {"data.name": ("cifar10",)},
    "lab": {"data.name": ("cifar10", "cifar100")},
    "paper": {
        "data.path": tuple(
            f"data/{name}" for name in ("flowers102", "cifar100", "food101", "inet10", "cifar10", "galaxy10")
        )
    },
}
RATES = {"paper": (5e-3, 5e-4)}
DECAYS = {"paper": (1e-1, 1e-2, 1e-5)}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (LEJEPA | {"paper": PRESETS["lejepa_inet10_resnet50"]})[scale]
    if "data.path" in DATA[scale]:  # an axis: the base has its first value
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, path=DATA[scale]["data.path"][0]))
    return Sweep(
        name=f"lejepa_indomain_{scale}",
        scale=scale,
        purpose=__doc__,
        base=base,
        grid={
            "model.encoder": ENCODERS[scale],
            **DATA[scale],
            "optim.lr": RATES.get(scale, (5e-3, 1e-3)),
            "optim.weight_decay": DECAYS.get(scale, (1e-3,)),
        },
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
