"""LeJEPA Fig. 8: test top-1 over lamb, one line per number of views, the best on val marked."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.points import (
    TOP1,
    VIEWS,
    best_setting,
    finished,
    grouped,
    label_of,
    lacking,
    over_seeds,
    seed_range,
    varied,
)
from analysis.figures.style import legend, log_axis, panels, series
from analysis.select.selection import numbers
from analysis.table.pivot import that_differ

SWEEP = "lejepa_lambda_views"
LAMB = "method.lamb"


def lacks(runs: pd.DataFrame) -> str:
    return lacking(runs, varies=(LAMB,), measured=(TOP1,))


def draw(runs: pd.DataFrame) -> Figure:
    """Bands are one standard deviation over seeds to each side; lines connect means."""
    runs = runs.assign(V=sum(numbers(runs, name) for name in VIEWS))
    runs = finished(runs)[np.isfinite(numbers(finished(runs), TOP1))]
    kinds = [axis for axis in VIEWS if axis in varied(runs)]
    keys = ["V", *that_differ(runs, ["V"], kinds)] if kinds else []
    keys += [axis for axis in varied(runs) if axis not in (*VIEWS, LAMB)]
    figure, (axes,) = panels()
    groups = grouped(runs, keys)
    for look, (_, own) in zip(series(len(groups)), groups, strict=True):
        line = over_seeds(own, [TOP1], [LAMB])
        name = label_of(own.iloc[0], [key for key in keys if key != "V"])
        views = f"{own['V'].iloc[0]:g} views" if "V" in keys else ""
        mean, spread = 100 * line[TOP1], 100 * line[f"{TOP1} std"]
        axes.plot(line[LAMB], mean, label=" ".join(filter(None, [views, name])), **look)
        axes.fill_between(line[LAMB], mean - spread, mean + spread, color=look["color"], alpha=0.18, linewidth=0)
        best = over_seeds(best_setting(own), [TOP1], [LAMB])
        axes.plot(best[LAMB], 100 * best[TOP1], "o", markersize=12, fillstyle="none", color=look["color"])
    axes.set(xlabel="lamb", ylabel="test top-1, online linear probe (%)")
    log_axis(axes, "x")
    lambs = sorted(runs[LAMB].dropna().unique())
    axes.set_xticks(lambs, [f"{lamb:g}" for lamb in lambs], rotation=45 if len(lambs) > 6 else 0)
    axes.minorticks_off()
    axes.set_title(f"ring: best on val; mean ± std, {seed_range(over_seeds(runs, [TOP1], [*keys, LAMB]), TOP1)}")
    legend(axes)
    return figure
