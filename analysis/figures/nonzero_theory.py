"""Rectified LpJEPA Fig. 3 b: the measured fraction of non-zeros over mu, with theory's line for each p."""

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.points import finished, grouped, label_of, lacking, over_seeds, seed_range, varied
from analysis.figures.style import legend, panels, series

SWEEP = "rectified_sparsity"
NONZERO, THEORY = "test/nonzero_fraction", "target/nonzero_fraction"


def lacks(runs: pd.DataFrame) -> str:
    return lacking(runs, varies=("method.mu",), measured=(NONZERO, THEORY))


def draw(runs: pd.DataFrame) -> Figure:
    """L0 as in the paper's Table 1: lower is sparser. Lines connect the expected fractions that the runs recorded."""
    runs = finished(runs)
    table = over_seeds(runs[runs["method.mu"].notna()], [THEORY, NONZERO]).dropna(subset=[THEORY])  # a target
    if not len(table):
        return Figure()
    keys = [axis for axis in varied(runs) if axis != "method.mu" and axis in table]
    figure, (axes,) = panels()
    groups = grouped(table, keys)
    for look, (_, group) in zip(series(len(groups)), groups, strict=True):
        group = group.sort_values("method.mu")
        axes.plot(group["method.mu"], group[THEORY], **look | {"marker": "none"})
        points = look | {"linestyle": "none", "label": label_of(group.iloc[0], keys)}
        axes.errorbar(group["method.mu"], group[NONZERO], yerr=group[f"{NONZERO} std"], **points)
    axes.set(xlabel="mu", ylabel="fraction of non-zeros in z (L0)", ylim=(0, 1))
    axes.set_title(f"lines: theory; points: mean ± std, {seed_range(table, NONZERO)}")
    legend(axes)
    return figure
