"""Lists of runs: trials by rank, and the winners of a fair ablation."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.select.objectives import goals_of
from analysis.select.selection import choices, current, has_winners, references
from analysis.table.cells import CellBuilder, Quantity, TableCell, cell_of, short, states_of

ONLINE = {"probe_top1", "projector_top1"}  # of probes that learn along with the encoder: after 0 epochs they guess


def ranked(runs: pd.DataFrame, columns: Sequence[Quantity]) -> pd.DataFrame:
    """Finished cells by the sweep's first goal, best first; then the unfinished; then the sweep's references.

    Equal scores share a rank. The index says "1", "2", ..., or what a row is: "diverged", "pruned at 3", "random init",
    and the run's name for a trained reference. Candidates of a search compete with its first seed; of one that runs
    with all seeds, what was measured on test is a mean over them.

    Args:
        columns: parameters and metrics; to mark the best of a metric on test here would be to choose on test.
    """
    goal, found = goals_of(runs)[0], current(runs)
    over_seeds: dict[str, pd.DataFrame] = {}
    if has_winners(runs):
        points = choices(runs)
        found = pd.concat([point.candidates for point in points])
        over_seeds = {point.winner["cell_key"].iloc[0]: point.winner for point in points if len(point.winner)}
    finished = pd.Series(states_of(found), index=found.index, dtype=object) == "finished"
    best_first = goal.best_first(found[finished])
    ranks = best_first["score"].rank(ascending=goal.direction == "min", method="min")
    unfinished = found[~finished].sort_values(["status", "start_time", "cell_key"])
    compared = references(runs).sort_values(["start_time", "cell_key"])
    labels = ["-" if math.isnan(rank) else int(rank) for rank in ranks]
    labels += [*states_of(unfinished), *_reference_labels(compared)]
    rows = [row for part in (best_first, unfinished, compared) for row in _entries(part, columns, over_seeds)]
    headers = [asked.label for asked in columns]
    return pd.DataFrame(rows, index=pd.Index(labels, name="rank", dtype=object), columns=headers, dtype=object)


def winners(runs: pd.DataFrame, columns: Sequence[Quantity]) -> pd.DataFrame:
    """A fair ablation: one row per point of its grid, with what the winner among its candidates has.

    Settings, and metrics but those on test, are the chosen candidate's; those on test are means over its seeds. Below
    a winner that is not there yet stands what its candidates are doing. The last columns count seeds and candidates.
    """
    points = choices(runs)
    rows: list[list[Any]] = []
    for point in points:
        unfinished = TableCell((), tuple(state for state in states_of(point.candidates) if state != "finished"))
        entries = [unfinished if "/" in asked.metric else TableCell() for asked in columns]
        if len(point.winner):
            best = point.winner.iloc[:1]
            (entries,) = _entries(best, columns, {best["cell_key"].iloc[0]: point.winner})
        n = states_of(point.winner).count("finished")
        rows.append([*entries, n, f"{len(point.candidates)}{_in_brackets(unfinished.status)}"])
    keys = [*points[0].point]
    labels = [tuple("-" if value == "" else value for value in point.point.values()) for point in points]
    index = pd.MultiIndex.from_tuples(labels, names=keys)
    headers = [*(asked.label for asked in columns), "n", "candidates"]
    return pd.DataFrame(rows, index=index, columns=headers, dtype=object)


def _entries(
    part: pd.DataFrame, columns: Sequence[Quantity], over_seeds: Mapping[str, pd.DataFrame]
) -> Iterator[list[Any]]:
    """A row per run: its metrics, or its settings.

    Args:
        over_seeds: cell key -> the run with its sisters, over which what is measured on test is averaged.
    """
    measured = CellBuilder(part, [asked for asked in columns if "/" in asked.metric])
    settings = [asked.metric for asked in columns if "/" not in asked.metric and asked.metric in part]
    kept = part[[*dict.fromkeys([*settings, "role", "epochs", "cell_key"])]]
    for at, run in enumerate(kept.to_dict("records")):
        seeds = over_seeds.get(run["cell_key"])
        yield [
            _metric(run, measured.cell([at], asked), seeds, asked) if "/" in asked.metric else _setting(run, asked)
            for asked in columns
        ]


def _setting(run: Mapping[Any, Any], asked: Quantity) -> Any:
    """A reference's settings were not chosen by the sweep and say nothing."""
    value = run.get(asked.metric, math.nan)
    if run["role"] == "reference" or pd.isna(value):
        return TableCell()
    return TableCell((value,), quantity=asked) if isinstance(value, float) else value


def _metric(run: Mapping[Any, Any], own: TableCell, seeds: pd.DataFrame | None, asked: Quantity) -> TableCell:
    if seeds is not None and asked.metric.startswith("test/"):
        cell = cell_of(seeds, asked)
        return TableCell() if {*cell.states} == {"not measured"} and not cell.values else cell
    guesses = run["epochs"] == 0 and short(asked.metric, "/") in ONLINE
    return own if own.values and not guesses else TableCell()  # the row's label says what the run is


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _reference_labels(references: pd.DataFrame) -> list[str]:
    """ "random init" where nothing was trained, with the rest of the run's name ("seed=1") if there are several."""
    several = (references["epochs"] == 0).sum() > 1
    labels = []
    for (_, run), state in zip(references.iterrows(), states_of(references), strict=True):
        label = str(run["run_name"])
        if run["epochs"] == 0:
            rest = [word for word in label.split() if several and word != "epochs=0"]
            label = " ".join(["random init", *rest])
        labels.append(label if state == "finished" else f"{label} ({state})")
    return labels
