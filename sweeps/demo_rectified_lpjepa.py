"""Rectified LpJEPA on handwritten digits: sparsity and accuracy over the target's p and mu.

Expect the measured non-zero fraction to fall with mu for every p, as in theory, and the encoder to stay accurate.
"""

import dataclasses
import sys

from jepa_train.methods import RectifiedLpJEPA
from jepa_train.presets import DIGITS
from sweeps.engine import Sweep, main

SWEEP = Sweep(
    name="demo_rectified_lpjepa",
    purpose=__doc__,
    base=dataclasses.replace(DIGITS, method=RectifiedLpJEPA(num_slices=256), epochs=20),
    grid={"method.p": [0.5, 1.0, 2.0], "method.mu": [0.5, 0.0, -1.0]},
)

if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
