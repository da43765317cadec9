"""Regularizers of z published since, next to SIGReg and RDMReg: VISReg, KerJEPA, Barlow Twins, over batch and slices.

Of no paper's table; VISReg's Figs. 2, 3 and 5 have parts of it. All methods have the base's recipe, two global views,
and the weights of their own papers; KerJEPA has LeJEPA's, being its limit for infinitely many slices.

Expect accuracies within a few points of each other, SIGReg with few slices below KerJEPA. KerJEPA's time grows with the
square of the batch, the others' with their slices. As z shrinks, expect the gradients of SIGReg and KerJEPA to fall
with it, that of RDMReg to stay, and those of VISReg (whose shape term is divided by the std) and, down to variances of
1e-5, of Barlow Twins to grow. They are measured at the end of a run (probe.protocols=collapse); cells that finished in
another sweep without get them by --evaluate probe.protocols=collapse.
"""

import dataclasses
import sys

from jepa_train.flat import Scalar
from jepa_train.presets import PRESETS
from jepa_train.scales import LEJEPA, SEEDS, Scale
from sweeps.engine import Sweep, main

Grid = dict[str, tuple[Scalar, ...]]

BATCHES = {"mini": (32, 256), "small": (64, 512), "lab": (64, 256, 1024)}
SLICES = {"mini": (16, 256), "small": (16, 256), "lab": (64, 1024, 4096)}
SLICED: tuple[Grid, ...] = (
    {"method": ("lejepa",), "method.lamb": (0.02,)},
    {"method": ("visreg",), "method.lamb": (0.6,)},
    {"method": ("rectified_lpjepa",)},
)
OTHERS: tuple[Grid, ...] = ({"method": ("kerjepa",), "method.lamb": (0.02,)}, {"method": ("barlow_twins",)})


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (LEJEPA | {"paper": PRESETS["visreg_imagenette_vit_s8"]})[scale]
    base = dataclasses.replace(
        base,
        views=dataclasses.replace(base.views, num_global=2, num_local=0),
        probe=dataclasses.replace(base.probe, protocols="collapse"),
    )
    batch: Grid = {"global_batch": BATCHES.get(scale, (64, 256, 1024))}
    slices: Grid = {"method.num_slices": SLICES.get(scale, (64, 1024, 4096))}
    grid = [*(method | batch | slices for method in SLICED), *(method | batch for method in OTHERS)]
    name = f"regularizers_{scale}"
    return Sweep(name=name, scale=scale, purpose=__doc__, base=base, grid=grid, seeds=SEEDS[scale])


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
