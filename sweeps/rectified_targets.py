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
# preset of each baseline at the paper's scale, on ImageNet-100, where NCL has no file of its own, and on CIFAR
RECIPES = {
    "vicreg": "vicreg_imagenet100_resnet50",
    "simclr": "simclr_imagenet100_resnet50",
    "ncl": "simclr_imagenet100_resnet50",
}
CIFAR_RECIPES = {name: f"{name}_cifar100_resnet18" for name in RECIPES}
# sections of a baseline's preset that its rows take over; data, batch and epochs are the target's
SECTIONS: dict[Scale, tuple[str, ...]] = {"lab": ("views",), "paper": ("views", "model", "optim", "probe")}


def targets() -> list[Grid]:
    """A grid for each target: not all combinations of p and mu."""
    return [{"method": ("rectified_lpjepa",), "method.p": (p,), "method.mu": (mu,)} for p, mu in TARGETS]


def baselines(base: TrainConfig, recipes: Mapping[str, str], scale: Scale) -> list[Grid]:
    """A grid for each baseline, with the fields of its preset that differ from the base's: see SECTIONS.

    The authors published no file for LeJEPA on their code: its row has the base's fields.

    Args:
        recipes: method -> preset.
    """
    own, sections = flatten(base), SECTIONS.get(scale, ())
    grids = list[Grid]()
    for baseline in BASELINES:
        method = str(baseline["method"][0])
        preset = flatten(PRESETS[recipes[method]]) if method in recipes else {}
        followed = {key: value for key, value in preset.items() if key.partition(".")[0] in sections}
        grids.append(baseline | {key: (value,) for key, value in followed.items() if value != own[key]})
    return grids


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (RECTIFIED | {"paper": PRESETS["rectified_lpjepa_imagenet100_resnet50"]})[scale]
    if scale == "mini":
        base = transferred(base)
    return Sweep(
        name=f"rectified_targets_{scale}",
        scale=scale,
        purpose=__doc__,
        base=base,
        grid=[*targets(), *baselines(base, RECIPES if scale == "paper" else CIFAR_RECIPES, scale)],
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
