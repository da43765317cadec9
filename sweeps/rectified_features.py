"""Rectified LpJEPA, Fig. 3a: target rectified or not, against features rectified or not.

Expect the best accuracy with both rectified, about as much but dense features with neither, and a large loss with one.
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import RECTIFIED, SEEDS, Scale
from sweeps.engine import Sweep, main


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    return Sweep(
        name=f"rectified_features_{scale}",
        scale=scale,
        purpose=__doc__,
        base=(RECTIFIED | {"paper": PRESETS["rectified_lpjepa_imagenet100_resnet50"]})[scale],
        grid={"method.target": ("rgg", "gg"), "method.rectified": (True, False)},
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
