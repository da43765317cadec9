"""Rectified LpJEPA, Figs. 3b and 3c: sparsity and accuracy over the target's p and mu.

Expect the fraction of non-zeros to fall with mu, slightly above theory, and accuracy to stay high until about 5 % of
the entries are non-zero, then to drop sharply.
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import RECTIFIED, SEEDS, Scale
from sweeps.engine import Sweep, main

P = {"mini": (0.5, 1.0, 2.0), "small": (0.5, 1.0, 2.0)}
MU = {"mini": (1.0, 0.0, -1.0, -2.0, -3.0), "small": (1.0, 0.0, -1.0, -2.0, -3.0)}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale; the paper's CIFAR-100 figure has mu from -3 to 1 in steps of .25."""
    return Sweep(
        name=f"rectified_sparsity_{scale}",
        scale=scale,
        purpose=__doc__,
        base=(RECTIFIED | {"paper": PRESETS["rectified_lpjepa_cifar100_resnet18"]})[scale],
        grid={
            "method.p": P.get(scale, (0.25, 0.5, 0.75, 1.0, 2.0)),
            "method.mu": MU.get(scale, tuple(step / 4 for step in range(4, -13, -1))),
        },
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
