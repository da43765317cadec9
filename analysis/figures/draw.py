"""A figure file as a value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import styled
from analysis.store.runs import NothingToShow, histories_of
from analysis.tables import UnknownTable


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
