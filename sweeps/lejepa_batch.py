"""LeJEPA, Table 1 c: the batch.

Expect little effect (paper: 72.2 to 74.7 %, best at 512); the learning rate stays.
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale
from sweeps.engine import Sweep, main

SIZES = {"mini": (32, 64, 128, 256), "small": (64, 128, 256, 512)}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    return Sweep(
        name=f"lejepa_batch_{scale}",
        scale=scale,
        purpose=__doc__,
        base=(LEJEPA | {"paper": PRESETS["lejepa_imagenet1k_vit_l14"]})[scale],
        grid={"global_batch": SIZES.get(scale, (128, 256, 512, 1024))},
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
