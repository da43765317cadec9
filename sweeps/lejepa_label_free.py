"""LeJEPA, Figs. 10, 11, 19 and 21: selection of the best run by its training loss, without labels.

Expect the rank correlation of loss / lamb^alpha with test accuracy to peak near alpha = .4 (paper: .94 to .99).
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, Scale
from sweeps.engine import Sweep, main

LAMB = {"paper": (0.01, 0.02, 0.05, 0.1)}
RATES = {"lab": (3e-3, 1e-3, 1e-4), "paper": (3e-3, 1e-4)}
EPOCHS = {"mini": (6, 12), "small": (6, 12), "lab": (50, 100), "paper": (100, 400)}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    return Sweep(
        name=f"lejepa_label_free_{scale}",
        scale=scale,
        purpose=__doc__,
        base=(LEJEPA | {"paper": PRESETS["lejepa_inet10_resnet50"]})[scale],
        grid={
            "method.lamb": LAMB.get(scale, (0.005, 0.02, 0.05, 0.1, 0.2)),
            "optim.lr": RATES.get(scale, (5e-3, 1e-3, 2e-4)),
            "optim.weight_decay": (3e-2, 1e-5),
            "epochs": EPOCHS[scale],
        },
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
