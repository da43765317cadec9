"""LeJEPA, Table 1 b: numbers of views and of global views. The batch grows with the views, as in the paper.

Expect one global view to be far worse (paper: 53 to 69 %), two and four to be alike (72 to 75 %), and more views to
help a little.
"""

import dataclasses
import sys

from jepa_train.methods import LeJEPA as Method
from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale
from sweeps.engine import Sweep, main

# (views, global views, batch); the table has no 4 views with 4 global ones
PAPER = (
    *((4, 1, 256), (6, 1, 384), (8, 1, 512), (10, 1, 600)),
    *((4, 2, 256), (6, 2, 432), (8, 2, 512), (10, 2, 640)),
    *((6, 4, 384), (8, 4, 512), (10, 4, 600)),
)
SMALLER = {"mini": 8, "small": 4, "lab": 2, "paper": 1}  # batches by this factor


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (LEJEPA | {"paper": PRESETS["lejepa_imagenet1k_vit_l14"]})[scale]
    if scale == "paper":  # launch_views_ablation fixes 1000 slices
        base = dataclasses.replace(base, method=Method(lamb=0.05, num_slices=1000))
    return Sweep(
        name=f"lejepa_views_{scale}",
        scale=scale,
        purpose=__doc__,
        base=base,
        grid=[
            {
                "views.num_global": (num_global,),
                "views.num_local": (views - num_global,),
                "global_batch": (batch // SMALLER[scale],),
            }
            for views, num_global, batch in PAPER
        ],
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
