"""Rectified LpJEPA Fig. 4: entropy against sparsity, dependence between dimensions, and sparsity by method."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.points import finished, label_of, lacking, over_seeds, seed_range, varied
from analysis.figures.style import crosses, legend, panels, printable, series

SWEEP = "rectified_targets"
NONZERO, ENTROPY, HSIC = "test/nonzero_fraction", "test/entropy", "test/hsic"
DATA = "data.name"


def lacks(runs: pd.DataFrame) -> str:
    return lacking(runs, varies=("method",), any_of=(NONZERO, HSIC))


def draw(runs: pd.DataFrame) -> Figure:
    """Sparsity is the fraction of zeros; entropy is that of a dimension of z, in nats. Each data set has a bar.

    A panel without numbers is left out.
    """
    runs = finished(runs)
    keys = ["method", *(axis for axis in varied(runs) if axis not in (DATA, "method"))]
    table = over_seeds(runs, [NONZERO, ENTROPY, HSIC], [*keys, DATA])
    table["label"] = [label_of(row, keys) for _, row in table.iterrows()]
    kinds = ((_plane, [NONZERO, ENTROPY]), (_dependence, [HSIC]), (_sparsity, [NONZERO]))
    shown = [(draw_panel, found) for draw_panel, names in kinds if len(found := table.dropna(subset=names))]
    height = max(3.4, 0.22 * table["label"].nunique() + 1.2)
    figure, places = panels(1, len(shown), width=4.4, height=height)
    for axes, (draw_panel, found) in zip(places, shown, strict=True):
        draw_panel(axes, found)
    figure.suptitle(f"mean ± std, {seed_range(table, NONZERO, HSIC)}", fontsize=9)
    return figure


def _plane(axes: Axes, table: pd.DataFrame) -> None:
    groups = [*table.groupby("method")]
    for look, (name, group) in zip(series(len(groups)), groups, strict=True):
        xerr, yerr = group[f"{NONZERO} std"], group[f"{ENTROPY} std"]
        crosses(axes, look, 1 - group[NONZERO], group[ENTROPY], xerr=xerr, yerr=yerr, label=printable(str(name)))
    axes.set(xlabel="fraction of zeros in z", ylabel="entropy per dimension (nats)", title="entropy and sparsity")
    legend(axes)


def _dependence(axes: Axes, table: pd.DataFrame) -> None:
    _bars(axes, table, table[HSIC], table[f"{HSIC} std"])
    axes.set(xlabel="normalised HSIC between dimensions", title="dependence by data set")


def _sparsity(axes: Axes, table: pd.DataFrame) -> None:
    _bars(axes, table, 1 - table[NONZERO], table[f"{NONZERO} std"])
    axes.set(xlabel="fraction of zeros in z", title="sparsity by data set")
    legend(axes)


def _bars(axes: Axes, table: pd.DataFrame, values: pd.Series, spreads: pd.Series) -> None:
    labels = [*dict.fromkeys(table["label"])]
    sets = sorted(table[DATA].unique())
    thick = 0.8 / len(sets)
    for number, (look, name) in enumerate(zip(series(len(sets)), sets, strict=True)):
        own = (table[DATA] == name).to_numpy()
        places = np.array([labels.index(label) for label in table["label"][own]])
        shift = (number - (len(sets) - 1) / 2) * thick
        bars = {"color": look["color"], "alpha": 0.75, "label": printable(str(name))}
        axes.barh(places + shift, values[own], thick, xerr=spreads[own], **bars)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
