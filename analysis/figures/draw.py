"""A figure file as a value, and the experiment that it reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import styled
from analysis.store.runs import NothingToShow, load_histories, sweeps_in
from analysis.store.sources import shown
from analysis.tables import UnknownTable


class UnknownFigure(UnknownTable):
    """No such figure or scale, several scales, or no sweep for a figure of any sweep; one line with the remedy."""


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
            NothingToShow: the runs lack what it draws.
        """
        lack = self.lacks(runs)
        if lack:
            raise NothingToShow(f"{self.name} has nothing to draw of {runs['sweep'].iloc[0]}: {lack}")
        curves = [load_histories(runs["sweep"].iloc[0], self.curves(runs), store)] if self.curves else []
        with styled():
            return self.make(runs, *curves)


def experiment_of(sweep: str, store: str, scale: str = "") -> str:
    """The experiment of a sweep at a scale, by default the only one in the store.

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
