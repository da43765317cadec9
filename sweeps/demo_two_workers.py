"""The best cell of demo_lejepa once more, on two DDP workers: the global batch is the unit, so the results agree.

Expect the same accuracy within a few images: the sums of two workers differ in their last bits.
"""

import sys

from sweeps.engine import BestOf, Sweep, main

SWEEP = Sweep(name="demo_two_workers", purpose=__doc__, base=BestOf("demo_lejepa"), workers=2)

if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
