"""Rectified LpJEPA Fig. 3 b: the measured fraction of non-zeros over mu, with theory's line for each p."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.points import finished, lacking, over_seeds, seed_range
from analysis.figures.style import panels, series
from analysis.figures.theory import expected_nonzero_fraction

SWEEP = "rectified_sparsity"
NONZERO = "test/nonzero_fraction"
KEYS = ("method.p", "method.mu", "method.sigma_mode")
FURTHER = ("method.target", "method.rectified")  # axes with several points at the same mu


def lacks(runs: pd.DataFrame) -> str:
    silent = [key for key in KEYS if key not in runs]
    lack = lacking(runs, varies=("method.mu",), measured=(NONZERO,), only=(*KEYS, *FURTHER))
    return lack or (f"no run has {silent[0]}" if silent else "")


def draw(runs: pd.DataFrame) -> Figure:
    """L0 as in the paper's Table 1: lower is sparser."""
    runs = finished(runs)
    runs = runs[runs["method.p"].notna()]  # other methods have no target
    table = over_seeds(runs, [NONZERO], [*KEYS, *FURTHER])
    figure, (axes,) = panels()
    low, high = table["method.mu"].min(), table["method.mu"].max()
    wide = np.linspace(low, high, 201) if high > low else np.array([low])
    groups = [*table.groupby(["method.p", "method.sigma_mode"])]
    several = table["method.sigma_mode"].nunique() > 1
    for look, ((p, mode), group) in zip(series(len(groups)), groups, strict=True):
        axes.plot(wide, expected_nonzero_fraction(p, wide, mode), **look | {"marker": "none"})
        label, look = f"p={p:g}" + (f" sigma {mode}" if several else ""), look | {"linestyle": "none"}
        axes.errorbar(group["method.mu"], group[NONZERO], yerr=group[f"{NONZERO} std"], label=label, **look)
    axes.set(xlabel="mu", ylabel="fraction of non-zeros in z (L0)", ylim=(0, 1))
    modes = "/".join(sorted(table["method.sigma_mode"].unique()))
    axes.set_title(f"lines: theory (sigma {modes}); points: mean ± std, {seed_range(table, NONZERO)}")
    axes.legend()
    return figure
