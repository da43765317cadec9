"""LeJEPA Fig. 11: |C(alpha)|, how well train loss / lamb^alpha ranks runs by accuracy, with its bootstrap band."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.label_free_scatter import lacks as lacks_scatter
from analysis.figures.points import groups_by_views
from analysis.figures.style import panels, series
from analysis.label_free import ALPHAS, PAPERS, label_free

SWEEP = "lejepa_label_free"


def lacks(runs: pd.DataFrame) -> str:
    return lacks_scatter(runs)


def draw(runs: pd.DataFrame) -> Figure:
    """The legend says C(0) -> C(best), as the paper's does. Dotted where a lower loss goes with a lower accuracy."""
    figure, (axes,) = panels(width=5.2)
    groups = label_free(runs, by=groups_by_views(runs))
    alphas = np.array(ALPHAS)
    for look, group in zip(series(len(groups)), groups, strict=True):
        color = look["color"]
        name = f"{group.name} " if group.name else ""
        label = f"{name}{group.scores[0].spearman:.2f} → {group.best.spearman:.2f} at {group.best.alpha:g}"
        axes.plot(alphas, np.where(group.curve >= 0, group.curve, np.nan), color=color, label=label)
        axes.plot(alphas, np.where(group.curve < 0, -group.curve, np.nan), color=color, linestyle=":")
        ends = np.sort(np.abs(np.stack([group.low, group.high])), axis=0)
        ends[0] = np.where(group.low * group.high < 0, 0, ends[0])  # the band reaches over 0
        axes.fill_between(alphas, ends[0], ends[1], color=color, alpha=0.15, linewidth=0)
        axes.plot(group.best.alpha, abs(group.best.spearman), color=color, marker=look["marker"], markersize=8)
    axes.axvline(PAPERS, color="0.6", linewidth=0.8, linestyle="--")
    axes.annotate(f" paper: {PAPERS:g}", (PAPERS, 0.02), fontsize=8, color="0.4")
    axes.set(xlabel="alpha", ylabel="|Spearman|, loss / lamb^alpha and accuracy", ylim=(0, 1.02), xlim=(-3, 3))
    axes.set_title("band: 95 % bootstrap; dotted: of the wrong sign")
    axes.legend(loc="lower left")
    return figure
