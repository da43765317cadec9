"""Rectified LpJEPA, Table 1 and Fig. 4: targets RGG(p, mu), sparse and dense baselines.

Evaluation on other data sets fills Tables 3 to 8: --evaluate probe.transfer=dtd=DIR,cifar10=DIR,... Expect equal
accuracies, except for the sparsest target, and the projector's probe below the encoder's.
"""

import sys
from collections.abc import Mapping

from jepa_train.config import TrainConfig
from jepa_train.flat import Scalar, flatten
from jepa_train.presets import PRESETS
from jepa_train.scales import RECTIFIED, SEEDS, Scale, transferred
from sweeps.engine import Sweep, main

Grid = dict[str, tuple[Scalar, ...]]

TARGETS = ((2.0, 0.0), (1.0, 0.0), (1.0, 0.25), (2.0, 1.0), (1.0, -3.0))  # (p, mu), sigma_mode "gn"
BASELINES: tuple[Grid, ...] = (
    # 25 / 50 / 1: solo-learn's 25 / 25 / 1, which sums the variance over the views
    {"method": ("vicreg",), "method.nonneg": ("none", "relu", "rep_relu"), "method.lamb_var": (50.0,)},
    {"method": ("simclr",)},
    {"method": ("ncl",), "method.nonneg": ("relu", "rep_relu")},
    {"method": ("lejepa",)},
)
# method -> preset; on ImageNet-100 NCL has no file of its own, and LeJEPA has none at all
CIFAR = {name: f"{name}_cifar100_resnet18" for name in ("vicreg", "simclr", "ncl")}
IMAGENET = {"vicreg": "vicreg_imagenet100_resnet50", **dict.fromkeys(("simclr", "ncl"), "simclr_imagenet100_resnet50")}
# sections of its preset that a baseline follows; data, batch and epochs are the target's
SECTIONS: dict[Scale, tuple[str, ...]] = {"lab": ("views",), "paper": ("views", "model", "optim", "probe")}


def targets() -> list[Grid]:
    """A grid for each target: not all combinations of p and mu."""
    return [{"method": ("rectified_lpjepa",), "method.p": (p,), "method.mu": (mu,)} for p, mu in TARGETS]


def baselines(base: TrainConfig, recipes: Mapping[str, str], scale: Scale) -> list[Grid]:
    """A grid for each baseline, with the fields in which its preset, recipes[method], differs from the base."""
    own, sections, grids = flatten(base), SECTIONS.get(scale, ()), list[Grid]()
    for baseline in BASELINES:
        method = str(baseline["method"][0])
        preset = flatten(PRESETS[recipes[method]] if method in recipes else base)
        followed = {key: value for key, value in preset.items() if key.partition(".")[0] in sections}
        grids.append(baseline | {key: (value,) for key, value in followed.items() if value != own[key]})
    return grids


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (RECTIFIED | {"paper": PRESETS["rectified_lpjepa_imagenet100_resnet50"]})[scale]
    base = transferred(base) if scale == "mini" else base
    grid = [*targets(), *baselines(base, IMAGENET if scale == "paper" else CIFAR, scale)]
    name = f"rectified_targets_{scale}"
    return Sweep(name=name, scale=scale, purpose=__doc__, base=base, grid=grid, seeds=SEEDS[scale])


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
