"""Style and files of figures: readable in grey, the same bytes every time."""

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

STYLE: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "text.parse_math": False,  # names may contain dollar signs
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
    """A figure with axes of that size in inches each, row by row, or none. Without pyplot, which would keep it open."""
    if not rows * columns:
        return Figure(), []
    figure = Figure(figsize=(width * columns, height * rows))
    return figure, [*figure.subplots(rows, columns, squeeze=False).flat]


def legend(axes: Axes, **options: Any) -> None:
    """A legend, if anything has a label; a large one is beside the axes, in a figure that grows by its size."""
    handles, labels = axes.get_legend_handles_labels()
    lines, longest = sum(1 + label.count("\n") for label in labels), max(map(len, "\n".join(labels).split("\n")))
    figure = axes.get_figure(root=True)
    if labels and figure is not None and (lines > 12 or longest > 40):
        width, height = figure.get_size_inches()
        figure.set_size_inches(width + 0.6 + 0.065 * longest, max(height, 0.6 + 0.17 * lines))
        figure.legend(handles, labels, loc="outside right center")
    elif labels:
        axes.legend(handles, labels, **options)


@cache
def _font() -> Any:
    return get_font(findfont(STYLE["font.family"]))


def printable(text: str) -> str:
    """A text in lines of at most 48 characters, all of which the font has; others are codes such as "\\u65e5"."""
    known = [one if _font().get_char_index(ord(one)) else one.encode("unicode_escape").decode() for one in text]
    return textwrap.fill("".join(known), 48, break_on_hyphens=False)


def crosses(
    axes: Axes, look: dict[str, Any], x: pd.Series, y: pd.Series, *, xerr: pd.Series, yerr: pd.Series, label: str
) -> None:
    """Points with thin error bars in both directions and no line between them; look is an item of series()."""
    axes.errorbar(x, y, xerr=xerr, yerr=yerr, label=label, linewidth=0.8, **look | {"linestyle": "none"})


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis with few, plain labels, also within a decade, where matplotlib's overlap. Call it last.

    The axis stays linear where a number is not positive.
    """
    least, most = axes.dataLim.intervalx if which == "x" else axes.dataLim.intervaly
    if not 0 < least <= most:
        return
    getattr(axes, f"set_{which}scale")("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high < 20 * low else (1, 3) if high < 200 * low else (1,)
    few = LogLocator(subs=subs, numticks=8)
    axis.set_major_locator(few if high > 5 * low else MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def as_bytes(figure: Figure, format: str) -> bytes:
    """The figure as pdf, svg or png, without dates: the same bytes for the same figure."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=format, metadata=_UNDATED[format])
    return buffer.getvalue()
