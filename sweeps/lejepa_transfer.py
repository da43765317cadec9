"""LeJEPA, Table 2: pre-training on one data set; frozen encoder evaluated on others, 1, 10 or all images per class.

    python sweeps/lejepa_transfer.py --scale paper data.path=DIR probe.transfer=dtd=DIR,cifar10=DIR,...

Expect far higher accuracy with 10 images per class than with one.
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale, transferred
from sweeps.engine import Sweep, main

ENCODERS = {
    "mini": ("test_resnet", "test_efficientnet"),
    "small": ("test_resnet", "test_efficientnet"),
    "lab": ("resnet18", "resnet34"),
    "paper": ("vit_large_patch14_224", "convnextv2_huge"),
}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (LEJEPA | {"paper": PRESETS["lejepa_imagenet1k_vit_l14"]})[scale]
    if scale == "mini":
        base = transferred(base)
    return Sweep(
        name=f"lejepa_transfer_{scale}",
        scale=scale,
        purpose=__doc__,
        base=base,
        grid={"model.encoder": ENCODERS[scale]},
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
