"""Finished tables: numbers, bold, and notes, built from the runs of a table's sweeps."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.store.runs import all_runs
from analysis.store.sources import RunSource, open_source
from analysis.store.uri import OneLineError
from analysis.table.code_versions import code_note
from analysis.table.layout import FinishedTable
from analysis.table.significance import embolden, seed_count_note
from analysis.table.summary import progress_note


class UnknownTable(OneLineError, ValueError):
    """No such table, sweep or scale, or several scales; or a wrong table file. The message is one line."""


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One table file at one scale of its sweeps.

    Args:
        name: the file's stem, or the sweep whose default table it is.
        sweeps: the experiments that it reads.
        within: see WITHIN in analysis.tables.
        build: runs -> frame, of the table file; its attrs may have a title in place of this one.
    """

    name: str
    scale: str
    title: str
    sweeps: tuple[str, ...]
    within: tuple[str, ...]
    build: Callable[[pd.DataFrame], pd.DataFrame]

    @property
    def label(self) -> str:
        """Stem of the table's output files: NAME or NAME-SCALE."""
        return "-".join(filter(None, [self.name, self.scale]))

    def load(self, store: str | RunSource | None = None) -> pd.DataFrame:
        """The runs of the table's sweeps in one frame; the column `sweep` names the sweep.

        Raises:
            NothingToShow: one of the sweeps has no runs in the store.
        """
        if not self.sweeps:
            return pd.DataFrame({"run_id": [], "sweep": []})
        source = open_source(store)
        parts = [all_runs(sweep, source) for sweep in self.sweeps]
        runs = pd.concat(parts, ignore_index=True)
        runs.attrs["notes"] = [note for part in parts for note in part.attrs.get("notes", [])]
        return runs

    def finish(self, runs: pd.DataFrame) -> FinishedTable:
        """The table of these runs, the best numbers bold, with notes below: seeds, significance, code, progress."""
        built = self.build(runs)
        frame, bold = embolden(built, self.within)
        about_numbers = [*built.attrs.get("notes", []), seed_count_note(frame), bold]
        commands = built.attrs.get("commands", [])
        about_runs = [*commands, code_note(frame, runs), *runs.attrs.get("notes", []), progress_note(runs)]
        return FinishedTable(
            title=built.attrs.get("title", self.title),
            label=self.label,
            frame=frame,
            about_numbers=[*filter(None, about_numbers)],
            about_runs=[*filter(None, about_runs)],
            runs=runs,
        )
