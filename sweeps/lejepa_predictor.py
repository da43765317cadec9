"""LeJEPA, Table 4: a predictor, averaged weights (SWA) and the projector's depth, for three encoders.

The table prints neither views nor lamb; all encoders here have those of Table 7's best ResNet-50: 4 views, lamb .02.

Expect no gain from the predictor, a gain from averaging for ViTs, and a gain from deeper projectors for all.
"""

import sys

from jepa_train.config import TrainConfig
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
MINI_LAYERS = {"test_resnet": (1, 3), "test_vit": (3,)}  # with one layer this ViT hardly learns: 15 to 17 %
DECAY = {"mini": 0.95, "small": 0.98, "lab": 0.999, "paper": 0.999}  # a mean over the last 20 to 1000 steps or so


def decay_of(patch_size: int, scale: Scale, base: TrainConfig) -> float:
    """The paper's weight decay is 5e-2 for ViTs, whatever it is for ResNets."""
    return 5e-2 if scale == "paper" and patch_size else base.optim.weight_decay


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
                "model.projector_layers": MINI_LAYERS[encoder] if scale == "mini" else (1, 2, 3),
                "optim.weight_decay": (decay_of(patch_size, scale, bases[scale]),),
            }
            for encoder, patch_size in ENCODERS[scale].items()
        ],
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
