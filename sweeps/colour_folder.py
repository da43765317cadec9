"""LeJEPA on a folder of small colour images, lamb below and at the paper's value for two views.

    python sweeps/colour_folder.py data.path=DIR      (DIR/train/<class>/*.jpg, DIR/test/<class>/*.jpg)

A check of data and machine in two short epochs, not of the method: expect 30 to 40 % on CIFAR-10.
"""

import dataclasses
import sys

from jepa_train.config import ModelConfig
from jepa_train.presets import PRESETS
from sweeps.engine import Sweep, main

SWEEP = Sweep(
    name="colour_folder",
    purpose=__doc__,
    base=dataclasses.replace(
        PRESETS["image_folder"], model=ModelConfig(encoder="test_resnet", small_stem=False), epochs=2
    ),
    grid={"method.lamb": [0.01, 0.05]},
)

if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
