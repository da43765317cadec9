"""LeJEPA, Table 7 and Fig. 8: the weight lamb against the number of views, all of them global.

Expect the best lamb to grow with the number of views (paper: .010 with 2, .020 with 4, .050 with 8), and accuracy with
it. The range of lamb depends on the views, as in the paper.
"""

import sys

from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale
from sweeps.engine import Sweep, main

NARROW = {2: (0.001, 0.005, 0.01, 0.02, 0.05), 4: (0.005, 0.01, 0.02, 0.05, 0.1), 8: (0.01, 0.02, 0.05, 0.1, 0.2)}
PAPER = {
    2: (0.001, 0.005, 0.01, 0.02, 0.025),
    4: (0.001, 0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.15, 0.2),
    8: (0.001, 0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    ranges = PAPER if scale == "paper" else NARROW
    return Sweep(
        name=f"lejepa_lambda_views_{scale}",
        scale=scale,
        purpose=__doc__,
        base=(LEJEPA | {"paper": PRESETS["lejepa_imagenet100_resnet50"]})[scale],
        grid=[{"views.num_global": [views], "method.lamb": lambs} for views, lambs in ranges.items()],
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
