"""Rectified LpJEPA Fig. 3 a: rectified and plain targets with rectified and plain features, accuracy and L0."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.points import TOP1, finished, lacking, over_seeds, seed_range, with_numbers
from analysis.figures.style import panels, series

SWEEP = "rectified_features"
TARGET, FEATURES = "method.target", "method.rectified"
QUANTITIES = {
    "encoder, test top-1 (%)": (TOP1, 100.0),
    "projector, test top-1 (%)": ("test/projector_top1", 100.0),
    "fraction of non-zeros in z (L0)": ("test/nonzero_fraction", 1.0),
}
TARGETS = {"rgg": "target RGN", "gg": "target GN"}
# rectified or not, label, place beside the target's, colour, hatch
SIDES = ((True, "features z+", -0.2, series(2)[0]["color"], ""), (False, "features z", 0.2, "0.85", "///"))


def lacks(runs: pd.DataFrame) -> str:
    metrics = [metric for metric, _ in QUANTITIES.values()]
    return lacking(runs, varies=(TARGET, FEATURES), any_of=metrics, only=(TARGET, FEATURES))


def draw(runs: pd.DataFrame) -> Figure:
    """Bars from zero, so that lengths compare, with their numbers above."""
    runs = finished(runs)
    runs = runs[runs[TARGET].notna()]
    metrics = with_numbers(runs, [metric for metric, _ in QUANTITIES.values()])
    table = over_seeds(runs, metrics, [TARGET, FEATURES])
    figure, places = panels(1, len(metrics), width=3.2)
    shown = [(name, *pair) for name, pair in QUANTITIES.items() if pair[0] in metrics]
    for axes, (name, metric, factor) in zip(places, shown, strict=True):
        _bars(axes, table, metric, factor)
        axes.set_title(name)
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"mean ± std, {seed_range(table, *metrics)}", fontsize=9)
    return figure


def _bars(axes: Axes, table: pd.DataFrame, metric: str, factor: float) -> None:
    for rectified, label, shift, color, hatch in SIDES:
        own = table[(table[FEATURES] == rectified) & np.isfinite(table[metric])]
        places = own[TARGET].map({target: place for place, target in enumerate(TARGETS)})
        heights, yerr = factor * own[metric], factor * own[f"{metric} std"]
        look: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "0.2", "label": label}
        bars = axes.bar(places + shift, heights, yerr=yerr, width=0.36, **look)
        axes.bar_label(bars, fmt="%.1f" if factor == 100 else "%.2f", padding=2, fontsize=8)
    axes.set_xticks(range(len(TARGETS)), [*TARGETS.values()])
    axes.margins(y=0.15)
