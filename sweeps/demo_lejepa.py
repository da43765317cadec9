"""LeJEPA on handwritten digits: does a short Optuna search find the paper's region?

Expect val probe top-1 near 0.98 for lamb between 0.005 and 0.05, some 10 points above the untrained encoder.
"""

import sys

from jepa_train.presets import DIGITS
from search_spaces import lejepa
from sweeps.engine import Sweep, main

SWEEP = Sweep(
    name="demo_lejepa",
    purpose=__doc__,
    base=DIGITS,
    space=lejepa.SPACE,
    trials=6,
    references=({"epochs": 0},),
)

if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
