"""LeJEPA, Fig. 9: encoders of many families, each at the best of its learning rates, weight decays and lamb by val.

Expect every family to learn with the same few settings (paper: 91.5 to 95 % on inet10, all below 20 M parameters).
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale
from sweeps.engine import Sweep, main

SETTINGS: dict[Scale, dict[str, tuple[float, ...]]] = {
    "mini": {"optim.lr": (5e-3, 1e-3), "optim.weight_decay": (1e-3,), "method.lamb": (0.02, 0.05)},
    "small": {"optim.lr": (5e-3, 1e-3), "optim.weight_decay": (1e-3,), "method.lamb": (0.02, 0.05)},
    "lab": {"optim.lr": (3e-3, 1e-4), "optim.weight_decay": (3e-2, 1e-5), "method.lamb": (0.02, 0.05)},
    "paper": {"optim.lr": (3e-3, 1e-4), "optim.weight_decay": (3e-2, 1e-5), "method.lamb": (0.01, 0.02, 0.05, 0.1)},
}
BELOW_20M = (
    *("resnet10t", "resnet14t", "resnet18", "resnet18d", "resnet26", "resnet26t", "resnet32ts", "resnext26ts"),
    *("convnext_atto", "convnext_femto", "convnext_pico", "convnext_nano"),
    *("convnextv2_atto", "convnextv2_femto", "convnextv2_pico", "convnextv2_nano"),
    *("vit_tiny_patch16_224", "vit_xsmall_patch16_clip_224", "deit_tiny_patch16_224"),
    *("levit_128s", "levit_128", "levit_192", "levit_256"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4"),
    *("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "efficientnet_lite3", "efficientnetv2_rw_t"),
    *("mobilenetv2_100", "mobilenetv2_140", "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small"),
    *("regnetx_002", "regnetx_004", "regnetx_008", "regnetx_016", "regnety_002", "regnety_004", "regnety_008"),
    *("regnety_016", "regnety_032"),
)
LAB = ("resnet10t", "resnet18", "resnet26t", "convnext_atto", "convnextv2_atto", "regnety_002", "efficientnet_b0")
TINY = ("test_resnet", "test_efficientnet", "test_byobnet", "test_mambaout")


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    return Sweep(
        name=f"lejepa_architectures_{scale}",
        scale=scale,
        purpose=__doc__,
        base=(LEJEPA | {"paper": PRESETS["lejepa_inet10_resnet50"]})[scale],
        grid={"model.encoder": BELOW_20M if scale == "paper" else LAB if scale == "lab" else TINY, **SETTINGS[scale]},
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
