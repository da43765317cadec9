"""LeJEPA Fig. 9: every run of every architecture, grouped by family, the best on val marked."""

import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.points import TOP1, best_setting, finished, lacking, over_seeds, seed_range, varied
from analysis.figures.style import legend, panels, printable, series
from analysis.select.selection import numbers

SWEEP = "lejepa_architectures"
ENCODER = "model.encoder"


def lacks(runs: pd.DataFrame) -> str:
    """The best setting is chosen among trainings on the same images."""
    if "data.name" in varied(runs):
        return "it would choose among data sets"
    return lacking(runs, varies=(ENCODER,), measured=(TOP1,))


def draw(runs: pd.DataFrame) -> Figure:
    """The best is chosen over all other axes by the sweep's goal on val; families are in the order of their best."""
    runs = finished(runs)
    runs = runs[np.isfinite(numbers(runs, TOP1))]
    best, points = {}, {}
    for encoder, own in runs.groupby(ENCODER):
        points[str(encoder)] = 100 * numbers(own, TOP1)
        table = over_seeds(best_setting(own), [TOP1], [ENCODER])
        if len(table):
            best[str(encoder)] = table.iloc[0]
    order = sorted(points, key=lambda name: float(best[name][TOP1]) if name in best else -1.0, reverse=True)
    families = [*dict.fromkeys(family(name) for name in order)]
    order = sorted(order, key=lambda name: families.index(family(name)))  # stable: by best within a family
    figure, (axes,) = panels(width=max(4.6, 0.42 * len(order) + 1.6), height=3.8)
    for look, kind in zip(series(len(families)), families, strict=True):
        places = [place for place, name in enumerate(order) if family(name) == kind]
        for place in places:
            values = points[order[place]]
            axes.plot(np.full(len(values), place), values, ".", color=look["color"], alpha=0.45, markersize=4)
        chosen = {place: best[order[place]] for place in places if order[place] in best}
        means, stds = ([100 * row[name] for row in chosen.values()] for name in (TOP1, f"{TOP1} std"))
        look |= {"linestyle": "none", "markersize": 8, "markeredgecolor": "0.1"}
        axes.errorbar([*chosen], means, yerr=stds, label=printable(kind), **look)
    axes.set_xticks(range(len(order)), [*map(printable, order)], rotation=60, ha="right", fontsize=7)
    axes.set_ylabel("test top-1, online linear probe (%)")
    seeds = seed_range(pd.DataFrame([*best.values()]), TOP1) if best else "n=0"
    axes.set_title(f"dots: runs; large: best on val, mean ± std, {seeds}")
    legend(axes, ncols=2)
    return figure


def family(encoder: str) -> str:
    """ "resnet" of resnet18, "vit" of vit_small_patch8_224, "convnextv2" of convnextv2_nano: timm's first word."""
    word = encoder.partition("_")[0] if not encoder.startswith("test_") else encoder.split("_")[1]
    return re.sub(r"\d+\w*$", "", word) if not re.search(r"v\d$", word) else word
