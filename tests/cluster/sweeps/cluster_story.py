"""Three trainings on digits, two workers each: on hosts of one CPU every trial spans two of them."""

import dataclasses
import sys

from jepa_train.config.presets import DIGITS
from jepa_train.methods import RectifiedLpJEPA
from sweeps.engine import Sweep, main

SWEEP = Sweep(
    name="cluster_story",
    purpose=__doc__,
    base=dataclasses.replace(DIGITS, method=RectifiedLpJEPA(num_slices=64), epochs=12),
    grid={"method.p": [0.5, 1.0, 2.0]},
    workers=2,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
