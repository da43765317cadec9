"""Style and files of figures: readable in grey, the same bytes every time."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

STYLE: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "pdf.fonttype": 42,  # text embedded as TrueType, as journals require
    "svg.hashsalt": "figures",
}
HOLLOW: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.35", "marker": "v"}  # points of failed runs
_MARKERS = "os^Dv*PX<>"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_UNDATED: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


@contextmanager
def styled() -> Iterator[None]:
    """Context in which figures are made and saved in this style; the user's settings stay."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def series(count: int) -> list[dict[str, Any]]:
    """Keywords of plot() for lines that differ in lightness, marker and line style, so also in grey."""
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, max(count, 2)))  # the yellow end is too light for a line
    return [
        {"color": shades[k], "marker": _MARKERS[k % len(_MARKERS)], "linestyle": _LINES[k % len(_LINES)]}
        for k in range(count)
    ]


def panels(rows: int = 1, columns: int = 1, *, width: float = 4.6, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure with axes of that size in inches each, row by row. Without pyplot, which would keep it open."""
    figure = Figure(figsize=(width * columns, height * rows))
    return figure, [*figure.subplots(rows, columns, squeeze=False).flat]


def crosses(
    axes: Axes, look: dict[str, Any], x: pd.Series, y: pd.Series, *, xerr: pd.Series, yerr: pd.Series, label: str
) -> None:
    """Points with thin error bars in both directions and no line between them; look is an item of series()."""
    axes.errorbar(x, y, xerr=xerr, yerr=yerr, label=label, linewidth=0.8, **look | {"linestyle": "none"})


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis with few, plain labels, also within a decade, where matplotlib's overlap. Call it last."""
    getattr(axes, f"set_{which}scale")("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    few = LogLocator(subs=(1, 2, 5)) if high < 200 * low else LogLocator(numticks=8)
    axis.set_major_locator(few if high > 5 * low else MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def as_bytes(figure: Figure, format: str) -> bytes:
    """The figure as pdf, svg or png, without dates: the same bytes for the same figure."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=format, metadata=_UNDATED[format])
    return buffer.getvalue()
