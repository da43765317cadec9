"""One figure per file, found by looking into this folder; style.py and points.py are what they share.

A figure file has a docstring whose first line describes it; SWEEP, the one that it draws by default ("" for any);
`lacks(runs)`, why it has nothing to draw of these runs ("" where it has); and `draw(runs) -> Figure`. One that needs
learning curves has `curves(runs)`, their metrics, and `draw(runs, histories)`.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import as_bytes, styled
from analysis.runs import NothingToShow, load_histories, load_runs, store_uri, sweeps_in
from analysis.store.sources import file_name, shown
from analysis.tables import UnknownTable

SHARED = {"style", "points"}
FORMATS = ("pdf", "png")


class UnknownFigure(UnknownTable):
    """No such figure or scale, several scales, or a figure of any sweep and none is named; one line with the remedy."""


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
        """The figure of one sweep's runs, in the one style; its curves are read from the store.

        Raises:
            NothingToShow: the runs lack what it draws.
        """
        lack = self.lacks(runs)
        if lack:
            raise NothingToShow(f"{self.name} has nothing to draw of {runs['sweep'].iloc[0]}: {lack}")
        with styled():
            if self.curves is None:
                return self.make(runs)
            return self.make(runs, load_histories(runs["sweep"].iloc[0], self.curves(runs), store))


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
        own: leave out those that were made for other sweeps or need long; learning curves stay.
    """
    study = runs["sweep.name"].iloc[0] if "sweep.name" in runs else runs["sweep"].iloc[0]
    drawings = sorted(map(find, names()), key=lambda drawing: drawing.sweep != study)
    for drawing in drawings:
        if not (own and drawing.sweep != study and drawing.name != "curves") and not drawing.lacks(runs):
            yield drawing, as_bytes(drawing.draw(runs, store), format)


def write_figure(name: str, store: str | None, folder: Path, *, scale: str = "", sweep: str = "") -> list[Path]:
    """Draw a figure from the store, or an export of it, into folder/<name>[-<sweep>].pdf and .png.

    Args:
        sweep: what to draw instead of the figure's own sweep: an experiment of the store, scale included.

    Raises:
        UnknownFigure: see there.
        NothingToShow: no such sweep in the store, or its runs lack what is drawn.
    """
    drawing, store = find(name), store or store_uri()
    if not (sweep or drawing.sweep):
        raise UnknownFigure(f"{name} draws any sweep; say which with --sweep")
    experiment = sweep or experiment_of(drawing.sweep, store, scale)
    figure = drawing.draw(load_runs(experiment, store), store)
    stem = file_name("-".join(filter(None, [name, experiment if experiment != name else ""])))
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{stem}.{format}" for format in FORMATS]
    for file in files:
        file.write_bytes(as_bytes(figure, file.suffix[1:]))
    return files


def experiment_of(sweep: str, store: str, scale: str = "") -> str:
    """The experiment of a sweep at a scale; without a scale the only one that the store has.

    Raises:
        UnknownFigure: the store has several, and none is named.
        NothingToShow: it has none.
    """
    scales = {
        experiment.tags.get("sweep.scale", ""): name
        for name, experiment in sweeps_in(store).items()
        if experiment.tags.get("sweep.name", name) == sweep
    }
    wanted = [scale] if scale else [*scales]
    if len(wanted) > 1:
        raise UnknownFigure(f"{sweep} is in the store at the scales {', '.join(sorted(scales))}; choose one: --scale")
    if not wanted or wanted[0] not in scales:
        at = f" --scale {scale}" if scale else ""
        raise NothingToShow(f"sweep {sweep} has no runs in {shown(store)} yet; python sweeps/{sweep}.py{at} fills it")
    return scales[wanted[0]]
