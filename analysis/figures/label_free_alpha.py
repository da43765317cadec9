"""LeJEPA Fig. 11: |C(alpha)|, rank correlation of train loss / lamb^alpha with accuracy."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import label_free_scatter
from analysis.figures.points import groups_by_views
from analysis.figures.style import panels, printable, series
from analysis.table.label_free import ALPHAS, PAPERS, Group, label_free

SWEEP = "lejepa_label_free"


def lacks(runs: pd.DataFrame) -> str:
    """A correlation needs three runs whose losses and accuracies differ."""
    return label_free_scatter.lacks(runs) or ("" if _groups(runs) else "fewer than three different runs compare")


def _groups(runs: pd.DataFrame) -> list[Group]:
    return [group for group in label_free(runs, by=groups_by_views(runs)) if np.isfinite(group.curve).any()]


def draw(runs: pd.DataFrame) -> Figure:
    """A panel per group of comparable losses, titled C(0) → C(best) as in the paper. Dotted lines have the wrong sign:
    a lower loss goes with a lower accuracy."""
    groups = _groups(runs)
    figure, places = panels(1, len(groups), width=5.2 if len(groups) == 1 else 3.4, height=3.2)
    alphas, (look,) = np.array(ALPHAS), series(1)
    for axes, group in zip(places, groups, strict=True):
        axes.plot(alphas, np.where(group.curve >= 0, group.curve, np.nan), color=look["color"])
        axes.plot(alphas, np.where(group.curve < 0, -group.curve, np.nan), color=look["color"], linestyle=":")
        axes.plot(group.best.alpha, abs(group.best.spearman), color=look["color"], marker=look["marker"], markersize=8)
        axes.axvline(PAPERS, color="0.6", linewidth=0.8, linestyle="--")
        axes.annotate(f" paper: {PAPERS:g}", (PAPERS, 0.02), fontsize=8, color="0.4")
        ends_text = f"{group.scores[0].spearman:.2f} → {group.best.spearman:.2f} at {group.best.alpha:g}"
        axes.set_title(": ".join(filter(None, [printable(group.name), ends_text])))
        axes.set(xlabel="alpha", ylim=(0, 1.02), xlim=(-3, 3))
    places[0].set_ylabel("|Spearman| with accuracy")
    figure.suptitle("dotted: of the wrong sign", fontsize=9)
    return figure
