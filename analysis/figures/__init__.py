"""One figure per file, found by looking into this folder; points.py and style.py are shared.

A figure file has a docstring whose first line describes it; SWEEP, its default sweep ("" for any); `lacks(runs)`, the
reason why it has nothing to draw of these runs ("" where it has); and `draw(runs) -> Figure`, which leaves out panels
without numbers. One that needs learning curves has `curves(runs)`, their metrics, and `draw(runs, histories)`.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import as_bytes, styled
from analysis.runs import load_runs
from analysis.store.runs import NothingToShow, histories_of, store_uri
from analysis.store.sources import file_name
from analysis.tables import UnknownTable, experiment_of

SHARED = {"points", "style"}
FORMATS = ("pdf", "png")


class UnknownFigure(UnknownTable):
    """No such figure, or no sweep for a figure of any sweep; the message is one line with the remedy."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure file."""

    name: str
    description: str
    sweep: str
    lacks: Callable[[pd.DataFrame], str]
    curves: Callable[[pd.DataFrame], Sequence[str]] | None
    make: Callable[..., Figure]

    def draw(self, runs: pd.DataFrame, store: str) -> Figure:
        """The figure of one sweep's runs in the common style; curves are read from the store.

        Raises:
            NothingToShow: the runs lack what it draws, or no panel has a number.
        """
        sweep, lack = runs["sweep"].iloc[0], self.lacks(runs)
        if not lack:
            curves = [histories_of(runs, self.curves(runs), store)] if self.curves else []
            with styled():
                figure = self.make(runs, *curves)
            if figure.axes:
                return figure
            lack = "its numbers are missing"
        raise NothingToShow(f"{self.name} has nothing to draw of {sweep}: {lack}")


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED)


def find(name: str) -> Drawing:
    """The figure of that name.

    Raises:
        UnknownFigure: there is none.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(names())}"
        raise UnknownFigure(f"{name!r} is no figure; {remedy}")
    module = importlib.import_module(f"{__name__}.{name}")
    return Drawing(
        name=name,
        description=str(module.__doc__).partition("\n")[0],
        sweep=module.SWEEP,
        lacks=module.lacks,
        curves=getattr(module, "curves", None),
        make=module.draw,
    )


def pictures(runs: pd.DataFrame, store: str, format: str, *, own: bool = False) -> Iterator[tuple[Drawing, bytes]]:
    """Every figure that has something to draw of one sweep's runs, the sweep's own first.

    Args:
        own: only the sweep's own figures and its learning curves.
    """
    study = runs["sweep.name"].iloc[0] if "sweep.name" in runs else runs["sweep"].iloc[0]
    drawings = sorted(map(find, names()), key=lambda drawing: drawing.sweep != study)
    for drawing in drawings:
        if not (own and drawing.sweep != study and drawing.name != "curves"):
            with suppress(NothingToShow):
                yield drawing, as_bytes(drawing.draw(runs, store), format)


def write_figure(name: str, store: str | None, folder: Path, *, scale: str = "", sweep: str = "") -> list[Path]:
    """Draw a figure from the store, or an export of it, into folder/<name>-<sweep>.pdf and .png.

    Args:
        scale: by default the only one in the store.
        sweep: a sweep of the store, with or without its scale, in place of the figure's own.

    Raises:
        UnknownFigure: see there; UnknownTable: the store has several scales, and none is named.
        NothingToShow: no such sweep in the store, or its runs lack what is drawn.
    """
    drawing, store = find(name), store or store_uri()
    if not (sweep or drawing.sweep):
        raise UnknownFigure(f"{name} draws any sweep; say which with --sweep")
    experiment = experiment_of(sweep or drawing.sweep, store, scale)
    figure = drawing.draw(load_runs(experiment, store), store)
    stem = file_name(f"{name}-{experiment}")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{stem}.{format}" for format in FORMATS]
    for file in files:
        file.write_bytes(as_bytes(figure, file.suffix[1:]))
    return files
