"""LeJEPA, Table 1 d: the projector's width against slices and the width of the embedding.

Expect little effect (paper: 73.7 to 75.7 %): narrow projectors and many slices a little better.
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale
from sweeps.engine import Sweep, main

AXES = {
    "mini": ((16, 64, 256), (64, 256), (64, 256)),
    "small": ((16, 64, 256), (64, 256), (64, 256)),
    "lab": ((64, 256, 1024), (1024, 4096), (512, 2048)),
    "paper": ((64, 128, 256, 512, 1024), (1024, 4096), (512, 2048)),
}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    dims, slices, embeddings = AXES[scale]
    return Sweep(
        name=f"lejepa_dims_{scale}",
        scale=scale,
        purpose=__doc__,
        base=(LEJEPA | {"paper": PRESETS["lejepa_imagenet1k_vit_l14"]})[scale],
        grid={"model.projector_dim": dims, "method.num_slices": slices, "model.embed_dim": embeddings},
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
