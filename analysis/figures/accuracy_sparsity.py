"""Rectified LpJEPA Fig. 3 c: accuracy against sparsity, with the Pareto set and theory's sparsity of each target."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.points import TOP1, finished, grouped, label_of, lacking, over_seeds, seed_range, varied
from analysis.figures.style import crosses, legend, panels, series
from analysis.select.pareto import pareto_set

SWEEP = "rectified_sparsity"
NONZERO, THEORY = "test/nonzero_fraction", "target/nonzero_fraction"


def lacks(runs: pd.DataFrame) -> str:
    return lacking(runs, varies=("method.mu",), measured=(TOP1, NONZERO))


def draw(runs: pd.DataFrame) -> Figure:
    """Sparsity is the fraction of zeros, as in the authors' figure: 1 - L0 of their Table 1."""
    runs = finished(runs)
    table = over_seeds(runs, [TOP1, NONZERO, THEORY])
    table = table.dropna(subset=[NONZERO, TOP1])
    if not len(table):
        return Figure()
    keys = [axis for axis in varied(runs) if axis != "method.mu"]
    figure, (axes,) = panels(width=5.4, height=3.8)
    zeros, accuracy = 1 - table[NONZERO].to_numpy(), 100 * table[TOP1].to_numpy()
    front = np.flatnonzero(pareto_set(np.column_stack([zeros, accuracy]), ["max", "max"]))
    front = front[np.argsort(zeros[front])]
    axes.step(zeros[front], accuracy[front], where="pre", color="0.35", linewidth=1, label="Pareto set", zorder=1)
    targets = 1 - table[THEORY].to_numpy()
    axes.hlines(accuracy, zeros, targets, color="0.75", linewidth=0.7, zorder=1)
    axes.plot(targets, accuracy, "|", color="0.45", label="fraction of zeros in theory")
    groups = grouped(table, keys)
    for look, (_, group) in zip(series(len(groups)), groups, strict=True):
        x, y, xerr, yerr = 1 - group[NONZERO], 100 * group[TOP1], group[f"{NONZERO} std"], 100 * group[f"{TOP1} std"]
        crosses(axes, look, x, y, xerr=xerr, yerr=yerr, label=label_of(group.iloc[0], keys))
    axes.set(xlabel="sparsity: fraction of zeros in z on test (1 - L0)", ylabel="test top-1, online linear probe (%)")
    axes.set_title(f"one point per target; mean ± std, {seed_range(table, TOP1)}")
    legend(axes)
    return figure
