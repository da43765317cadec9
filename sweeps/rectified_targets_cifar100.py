"""Rectified LpJEPA, Table 2: the targets and baselines of Table 1 on CIFAR-100.

NCL runs as long as the others, 1000 epochs, where its authors' file stops at 200. Expect about the same accuracy of the
encoder for all (paper: 65.7 to 66.3 %).
"""

import dataclasses
import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import RECTIFIED, SEEDS, Scale
from sweeps.engine import Sweep, main
from sweeps.rectified_targets import CIFAR, baselines, targets


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (RECTIFIED | {"paper": PRESETS["rectified_lpjepa_cifar100_resnet18"]})[scale]
    if scale != "mini":  # there, digits
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, name="cifar100"))
    return Sweep(
        name=f"rectified_targets_cifar100_{scale}",
        scale=scale,
        purpose=__doc__,
        base=base,
        grid=[*targets(), *baselines(base, CIFAR, scale)],
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
