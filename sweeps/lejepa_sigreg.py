"""LeJEPA, Table 1 a: SIGReg's domain, slices and quadrature points.

The points are those of the authors' launch file (scripts/launch_epps_ablation.md): its bstat_n_points and bstat_t_max
are arguments of EppsPulley, which puts n points on [0, t_max] and doubles the integral. The other reading, n points on
[-t_max, t_max] as in Alg. 1, is method.domain=symmetric; with 5 points on [-5, 5] SIGReg then hardly sees a shift.

Expect hardly any effect (paper: 71.8 to 75.0 %), the domain [-1, 1] a little below the others, more slices a little
above fewer.
"""

import sys

from jepa_train.flat import unflatten
from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale
from sweeps.engine import Sweep, main

SLICES = {"mini": (64, 256), "small": (64, 256)}


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (LEJEPA | {"paper": PRESETS["lejepa_imagenet1k_vit_l14"]})[scale]
    return Sweep(
        name=f"lejepa_sigreg_{scale}",
        scale=scale,
        purpose=__doc__,
        base=unflatten({"method.domain": "half"}, base=base),
        grid={
            "method.t_max": (1.0, 3.0, 5.0),
            "method.num_slices": SLICES.get(scale, (512, 2048)),
            "method.num_knots": (5, 17, 41),
        },
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
