"""LeJEPA, Table 3 and Fig. 12: number of labelled images per class, with the encoder frozen or fine-tuned.

Expect frozen encoders ahead with few labels and fine-tuned ones with many.
"""

import dataclasses
import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, Scale
from sweeps.engine import Sweep, main

ENCODERS = {
    "mini": ("test_resnet", "test_efficientnet"),
    "small": ("test_resnet", "test_efficientnet"),
    "lab": ("resnet18", "resnet34"),
    "paper": ("convnextv2_nano", "levit_128", "resnet18", "resnet34"),
}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (LEJEPA | {"paper": PRESETS["lejepa_inet10_resnet50"]})[scale]
    probe = dataclasses.replace(base.probe, protocols="linear,kshot,finetune")
    return Sweep(
        name=f"lejepa_samples_{scale}",
        scale=scale,
        purpose=__doc__,
        base=dataclasses.replace(base, probe=probe),
        grid={"model.encoder": ENCODERS[scale]},
        seeds=(0, 1, 2),  # the paper's too
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
