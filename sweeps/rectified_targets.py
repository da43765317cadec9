"""Rectified LpJEPA, Table 1 and Fig. 4: targets RGG(p, mu), sparse and dense baselines.

Evaluation on other data sets fills Tables 3 to 8: --evaluate probe.transfer=dtd=DIR,cifar10=DIR,... Expect equal
accuracies, except for the sparsest target, and the projector's probe below the encoder's.
"""

import sys
from collections.abc import Mapping

from jepa_train.flat import flatten
from jepa_train.presets import PRESETS
from jepa_train.scales import RECTIFIED, SEEDS, Scale, transferred
from sweeps.engine import Sweep, main

Grid = dict[str, tuple[str | float, ...]]

TARGETS = ((2.0, 0.0), (1.0, 0.0), (1.0, 0.25), (2.0, 1.0), (1.0, -3.0))  # (p, mu), sigma_mode "gn"
BASELINES: tuple[Grid, ...] = (
    # 25 / 50 / 1: solo-learn's 25 / 25 / 1, which sums the variance over the views
    {"method": ("vicreg",), "method.nonneg": ("none", "relu", "rep_relu"), "method.lamb_var": (50.0,)},
    {"method": ("simclr",)},
    {"method": ("ncl",), "method.nonneg": ("relu", "rep_relu")},
    {"method": ("lejepa",)},
)
FIELDS = ("optim.lr", "probe.lr", "model.projector_layers", "model.projector_hidden", "model.projector_dim")


def targets() -> list[Grid]:
    """A grid for each target: not all combinations of p and mu."""
    return [{"method": ("rectified_lpjepa",), "method.p": (p,), "method.mu": (mu,)} for p, mu in TARGETS]


def baselines(recipes: Mapping[str, str]) -> list[Grid]:
    """A grid for each baseline, with learning rates and projector of its preset: method -> preset."""
    presets = [recipes.get(str(baseline["method"][0])) for baseline in BASELINES]
    flats = [flatten(PRESETS[preset]) if preset else {} for preset in presets]
    return [one | {key: (flat[key],) for key in FIELDS if flat} for one, flat in zip(BASELINES, flats, strict=True)]


def sweep(scale: Scale) -> Sweep:
    """The study at one scale."""
    base = (RECTIFIED | {"paper": PRESETS["rectified_lpjepa_imagenet100_resnet50"]})[scale]
    if scale == "mini":
        base = transferred(base)
    contrastive = "simclr_imagenet100_resnet50"  # NCL has no file of its own there
    recipes = {"vicreg": "vicreg_imagenet100_resnet50", "simclr": contrastive, "ncl": contrastive}
    return Sweep(
        name=f"rectified_targets_{scale}",
        scale=scale,
        purpose=__doc__,
        base=base,
        grid=[*targets(), *baselines(recipes if scale == "paper" else {})],
        seeds=SEEDS[scale],
    )


if __name__ == "__main__":
    sys.exit(main(sweep, __file__))
