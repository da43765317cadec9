"""LeJEPA Figs. 10 and 21: the plane of log SIGReg and log invariance, coloured by accuracy."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.points import TOP1, lacking
from analysis.figures.style import HOLLOW, legend, log_axis, panels
from analysis.select.selection import numbers
from analysis.table.label_free import points_of

SWEEP = "lejepa_label_free"
SIGREG, INVARIANCE = "train/sigreg", "train/invariance"


def lacks(runs: pd.DataFrame) -> str:
    return lacking(runs, varies=("method.lamb",), measured=(TOP1, SIGREG, INVARIANCE))


def draw(runs: pd.DataFrame) -> Figure:
    """Hollow points are failed runs at their last finite losses; the title counts runs without any."""
    found = points_of(runs, TOP1)
    own = runs.loc[found.index]
    x, y = numbers(own, SIGREG), numbers(own, INVARIANCE)
    failed = found["failed"].to_numpy()
    finite = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    if not (finite & ~failed).any():
        return Figure()
    figure, (axes,) = panels(width=5.0, height=3.8)
    done = finite & ~failed
    shown = axes.scatter(x[done], y[done], c=100 * found["accuracy"][done], s=26, edgecolor="0.2", linewidth=0.4)
    figure.colorbar(shown, ax=axes, label="test top-1 (%)")
    lost = finite & failed
    if lost.any():
        axes.scatter(x[lost], y[lost], s=30, label="failed", **HOLLOW)
        legend(axes)
    axes.set(xlabel=SIGREG, ylabel=INVARIANCE)
    log_axis(axes, "x")
    log_axis(axes, "y")
    omitted = f"; {(~finite).sum()} without finite losses not drawn" if not finite.all() else ""
    axes.set_title(f"n={finite.sum()}{omitted}")
    return figure
