"""LeJEPA, Table 4: a predictor, averaged weights (SWA) and the projector's depth, for three encoders.

Expect the predictor to be of no use, averaging to help ViTs, and deeper projectors to help all.
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale
from sweeps.engine import Sweep, main

# encoder -> its patches; at the paper's scale the ViTs have patches of 8 px
ENCODERS = {
    "mini": {"test_resnet": 0, "test_vit": 3},
    "small": {"test_resnet": 0, "test_vit": 4},
    "lab": {"resnet18": 0, "vit_tiny_patch16_224": 4},
    "paper": {"resnet50": 0, "vit_small_patch16_224": 8, "vit_tiny_patch16_224": 8},
}
DECAY = {"mini": 0.95, "small": 0.98, "lab": 0.999, "paper": 0.999}  # a mean over the last 20 to 1000 steps or so


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    bases = LEJEPA | {"paper": PRESETS["lejepa_imagenet100_resnet50"]}
    return Sweep(
        name=f"lejepa_predictor_{scale}",
        scale=scale,
        purpose=__doc__,
        base=bases[scale],
        grid=[
            {
                "model.predictor": (False, True),
                "model.swa_decay": (0.0, DECAY[scale]),
                "model.encoder": (encoder,),
                "model.patch_size": (patch_size,),
                "model.projector_layers": (1, 2, 3),
            }
            for encoder, patch_size in ENCODERS[scale].items()
        ],
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
