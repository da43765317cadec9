"""Names of the scales at which a study can run. Imports no torch, so that a command line starts quickly."""

from typing import Literal

Scale = Literal["mini", "small", "lab", "paper"]

SCALES: dict[Scale, str] = {
    "mini": "the bundled digits, minutes on 2 CPU cores",
    "small": "5,000 images of CIFAR-10, about an hour on 2 CPU cores",
    "lab": "CIFAR-10, a night on one GPU",
    "paper": "the paper's data and epochs, a cluster",
}
