"""LeJEPA, Table 1 e: register tokens of a ViT against slices.

Expect no effect of the tokens (paper: within .3 points), and a little of the slices.
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import SEEDS, VITS, Scale
from sweeps.engine import Sweep, main

SLICES = {"mini": (64, 256), "small": (64, 256)}
TOKENS = {"mini": (0, 2, 8)}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    return Sweep(
        name=f"lejepa_registers_{scale}",
        scale=scale,
        purpose=__doc__,
        base=(VITS | {"paper": PRESETS["lejepa_imagenet1k_vit_l14"]})[scale],
        grid={
            "method.num_slices": SLICES.get(scale, (1024, 4096)),
            "model.register_tokens": TOKENS.get(scale, (0, 1, 2, 4, 8)),
        },
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
