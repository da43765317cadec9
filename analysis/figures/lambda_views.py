"""LeJEPA Fig. 8: test top-1 over lamb, one line per number of views, the best on val marked."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import points
from analysis.figures.style import panels, series
from analysis.table.pivot import that_differ

SWEEP = "lejepa_lambda_views"
LAMB = "method.lamb"
MOST = 8  # lines that can still be told apart


def lacks(runs: pd.DataFrame) -> str:
    lack = points.lacking(runs, varies=(LAMB,), measured=(points.TOP1,))
    if lack:
        return lack
    runs = points.finished(points.with_views(runs))
    lines = len(runs.groupby(_keys(runs), dropna=False)) if _keys(runs) else 1
    return f"{lines} lines of the other axes are too many; at most {MOST}" if lines > MOST else ""


def draw(runs: pd.DataFrame) -> Figure:
    """Bands are one standard deviation over seeds to each side; lines connect means."""
    runs = points.finished(points.with_views(runs))
    keys = _keys(runs)
    table = points.over_seeds(runs, [points.TOP1], [*keys, LAMB])
    figure, (axes,) = panels()
    groups = [*table.groupby(keys, dropna=False)] if keys else [((), table)]
    for look, (_, line) in zip(series(len(groups)), groups, strict=True):
        line = line.sort_values(LAMB)
        name = points.label_of(line.iloc[0], [key for key in keys if key != "V"])
        views = f"{line['V'].iloc[0]:g} views" if "V" in keys else ""
        mean, spread = 100 * line[points.TOP1], 100 * line[f"{points.TOP1} std"]
        axes.plot(line[LAMB], mean, label=" ".join(filter(None, [views, name])), **look)
        axes.fill_between(line[LAMB], mean - spread, mean + spread, color=look["color"], alpha=0.18, linewidth=0)
        best = points.over_seeds(points.best_setting(_same(runs, line.iloc[0], keys)), [points.TOP1], [LAMB])
        axes.plot(best[LAMB], 100 * best[points.TOP1], "o", markersize=12, fillstyle="none", color=look["color"])
    axes.set(xscale="log", xlabel="lamb", ylabel="test top-1, linear probe (%)")
    lambs = sorted(table[LAMB].unique())
    axes.set_xticks(lambs, [f"{lamb:g}" for lamb in lambs], rotation=45 if len(lambs) > 6 else 0)
    axes.minorticks_off()
    axes.set_title(f"ring: best on val; mean ± std, {points.seeds_said(table, points.TOP1)}")
    axes.legend()
    return figure


def _keys(runs: pd.DataFrame) -> list[str]:
    others = [axis for axis in points.varied(runs) if axis not in (*points.VIEWS, LAMB)]
    kinds = [axis for axis in points.VIEWS if axis in points.varied(runs)]
    return [*(["V", *that_differ(runs, ["V"], kinds)] if kinds else []), *others]


def _same(runs: pd.DataFrame, row: pd.Series, keys: list[str]) -> pd.DataFrame:
    inside = np.ones(len(runs), dtype=bool)
    for key in keys:
        inside &= ((runs[key] == row[key]) | (runs[key].isna() & pd.isna(row[key]))).to_numpy(dtype=bool)
    return runs[inside]
