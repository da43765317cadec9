"""LeJEPA Fig. 19: train loss / lamb^alpha against test top-1, one point per run, coloured by lamb."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.figures.points import TOP1, groups_by_views, lacking
from analysis.figures.style import HOLLOW, log_axis, panels, printable
from analysis.table.label_free import LAMB, LOSS, Group, Score, label_free, points_of

SWEEP = "lejepa_label_free"


def lacks(runs: pd.DataFrame) -> str:
    lack = lacking(runs, varies=(LAMB,), measured=(TOP1, LOSS))
    return lack or ("" if len(points_of(runs, TOP1)) else "no finished run has both at a positive lamb")


def draw(runs: pd.DataFrame) -> Figure:
    """A row per group of comparable losses; a panel at alpha 0, at the paper's and at the best, if it is another.
    Failed runs are hollow; those that diverged are at the right edge, for an infinite loss."""
    groups = label_free(runs, by=groups_by_views(runs))
    shown = [{score.alpha: score for score in group.scores} for group in groups]
    columns = max(map(len, shown))
    figure, places = panels(len(groups), columns, width=3.4, height=3.0)
    lamb = pd.concat([group.points["lamb"] for group in groups])
    norm = LogNorm(lamb.min(), max(lamb.max(), lamb.min() * 1.001))
    for number, (group, scores) in enumerate(zip(groups, shown, strict=True)):
        row = places[columns * number : columns * (number + 1)]
        for axes in row[len(scores) :]:
            axes.set_visible(False)
        for axes, score in zip(row, scores.values(), strict=False):
            _scatter(axes, group, score, norm)
            axes.set_xlabel(f"{LOSS} / lamb^{score.alpha:g}" + (" (best alpha)" if score is group.best else ""))
        row[0].set_ylabel("\n".join(filter(None, [printable(group.name), "test top-1 (%)"])))
    bar = figure.colorbar(places[0].collections[0], ax=places, label="lamb", fraction=0.03)
    ticks = sorted(lamb.unique()) if lamb.nunique() <= 8 else [lamb.min(), lamb.max()]
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    hollow = [pair for axes in places for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    if hollow:
        figure.legend([hollow[0][0]], [hollow[0][1]], loc="outside lower center")
    return figure


def _scatter(axes: Axes, group: Group, score: Score, norm: LogNorm) -> None:
    points = group.points
    x = (points["loss"] / points["lamb"] ** score.alpha).to_numpy()
    y = 100 * points["accuracy"].to_numpy()
    failed = points["failed"].to_numpy()
    axes.scatter(x[~failed], y[~failed], c=points["lamb"][~failed], norm=norm, s=22, edgecolor="0.2", linewidth=0.4)
    if failed.any():
        finite = x[np.isfinite(x)]
        end = 2 * finite.max() if len(finite) else 1.0
        places = np.where(np.isfinite(x[failed]), x[failed], end)
        axes.scatter(places, y[failed], label="failed (at the right edge: diverged)", s=28, **HOLLOW)
    log_axis(axes, "x")
    axes.set_title(f"Spearman {100 * score.spearman:.1f} %, n={len(points)}")
