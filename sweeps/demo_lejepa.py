"""LeJEPA on handwritten digits: a short Optuna search for the paper's region of hyper-parameters.

Expect a linear probe of 0.97 to 0.99 on test for lamb near 0.02 and learning rates near 0.005, 15 points or more above
no training.
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
    trials=8,
    references=({"epochs": 0},),
)

if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
