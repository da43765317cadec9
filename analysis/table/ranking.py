"""Lists of runs: trials by rank, and the winners of a fair ablation."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.select.front import front_of
from analysis.select.objectives import goals_of
from analysis.select.selection import Choice, choices, current, has_winners, references, searched, trials, with_scores
from analysis.table.cells import CellBuilder, Quantity, TableCell, short, states_of

ONLINE = {"probe_top1", "projector_top1"}  # probes that train along with the encoder: after 0 epochs they guess


def ranked(runs: pd.DataFrame, columns: Sequence[Quantity], *, individual: bool = False) -> pd.DataFrame:
    """Finished cells by the sweep's first goal, best first; infeasible ones; the unfinished; the sweep's references.

    Equal scores share a rank. The index is "1", "2", ..., or "diverged", "pruned at 3", "random init", and the run's
    name for a trained reference. Candidates of a search compete with the seeds of a trial, and their metrics are means
    over these; the test metrics of a candidate that ran with all seeds are means over all.

    Args:
        columns: parameters and metrics; without bold numbers, since a choice by test metrics would be a choice on test.
        individual: every run is a row, also the further seeds of a candidate, as always of a grid.
    """
    goal, runs = goals_of(runs)[0], with_scores(runs)
    found, points = current(runs), choices(runs) if has_winners(runs) and not individual else []
    if searched(runs) and not individual:
        found = pd.concat([point.candidates for point in points]) if points else trials(runs)
    states = pd.Series(states_of(found), index=found.index, dtype=object)
    best_first = goal.best_first(found[states == "finished"])
    ranks = best_first[goal.name].rank(ascending=goal.direction == "min", method="min")
    infeasible = goal.best_first(found[states == "infeasible"].assign(status="finished"))  # its numbers are shown
    unfinished = found[~states.isin(["finished", "infeasible"])].sort_values(["status", "start_time", "cell_key"])
    compared = references(runs).sort_values(["start_time", "cell_key"])
    labels = ["-" if math.isnan(rank) else int(rank) for rank in ranks]
    labels += ["infeasible"] * len(infeasible) + [*states_of(unfinished), *_reference_labels(compared)]
    parts = (best_first, infeasible, unfinished, compared)
    rows = [row for part in parts for row in _entries(runs, part, columns, points)]
    headers = [quantity.label for quantity in columns]
    return pd.DataFrame(rows, index=pd.Index(labels, name="rank", dtype=object), columns=headers, dtype=object)


def with_pareto_set(runs: pd.DataFrame, columns: Sequence[Quantity]) -> tuple[pd.DataFrame, list[Quantity]]:
    """The runs and columns of a sweep with several goals, with a further column that marks the Pareto set by "*"."""
    front = front_of(runs)
    if front is None:
        return runs, [*columns]
    marks = ["*" if key in front.keys else "" for key in runs["cell_key"]]
    return runs.assign(pareto=marks), [*columns, Quantity(label="Pareto set", metric="pareto")]


def winners(runs: pd.DataFrame, columns: Sequence[Quantity]) -> pd.DataFrame:
    """A fair ablation: one row per point of its grid, with the settings and metrics of its best candidate.

    Test metrics are means over the winner's seeds. A point without a winner shows the states of its candidates. The
    last columns count seeds and candidates.
    """
    points, (goal, *_) = choices(runs), goals_of(runs)
    best = pd.concat([goal.best_first(point.candidates)[:1] for point in points])
    found = _entries(runs, best, columns, points)
    rows: list[list[Any]] = []
    for point in points:
        unfinished = TableCell((), tuple(state for state in states_of(point.candidates) if state != "finished"))
        entries = [unfinished if "/" in quantity.metric else TableCell() for quantity in columns]
        entries = next(found) if len(point.winner) else entries
        status = f" ({unfinished.status})" if unfinished.status else ""
        rows.append([*entries, states_of(point.winner).count("finished"), f"{len(point.candidates)}{status}"])
    labels = [tuple("-" if value == "" else value for value in point.point.values()) for point in points]
    index = pd.MultiIndex.from_tuples(labels, names=[*points[0].point])
    headers = [*(quantity.label for quantity in columns), "n", "candidates"]
    return pd.DataFrame(rows, index=index, columns=headers, dtype=object)


def _entries(
    runs: pd.DataFrame, part: pd.DataFrame, columns: Sequence[Quantity], points: Sequence[Choice]
) -> Iterator[list[Any]]:
    """A row per row of part: its settings and metrics. Test metrics of the winners of points are over all their seeds,
    the others over those of a trial."""
    measured = CellBuilder(runs, [quantity for quantity in columns if "/" in quantity.metric])
    place = {run_id: at for at, run_id in enumerate(runs["run_id"])}
    winners = {point.winner["cell_key"].iloc[0]: point.winner["run_id"] for point in points if len(point.winner)}
    settings = [quantity.metric for quantity in columns if "/" not in quantity.metric]
    kept = {*settings, "role", "epochs", "cell_key", "run_id", "run_ids"} & {*part}
    for run in part[[*kept]].to_dict("records"):
        seeds = run.get("run_ids", [run["run_id"]])
        row: list[Any] = []
        for quantity in columns:
            if "/" not in quantity.metric:
                row.append(_setting(run, quantity))
                continue
            ids = winners.get(run["cell_key"], seeds) if quantity.metric.startswith("test/") else seeds
            cell = measured.cell([place[run_id] for run_id in ids], quantity)
            guesses = run["epochs"] == 0 and short(quantity.metric, "/") in ONLINE
            row.append(cell if cell.values and not guesses else TableCell())  # the row's label has the state
        yield row


def _setting(run: Mapping[Any, Any], quantity: Quantity) -> Any:
    """ "-" for a reference: the sweep did not choose its settings."""
    value = run.get(quantity.metric, math.nan)
    if run["role"] == "reference" or pd.isna(value):
        return TableCell()
    return TableCell((value,), quantity=quantity) if isinstance(value, float) else value


def _reference_labels(references: pd.DataFrame) -> list[str]:
    """ "random init" where nothing was trained, with the rest of the run's name ("seed=1") if there are several."""
    several = (references["epochs"] == 0).sum() > 1
    labels = []
    for name, epochs, state in zip(references["run_name"], references["epochs"], states_of(references), strict=True):
        words = [word for word in str(name).split() if several and word != "epochs=0"]
        label = " ".join(["random init", *words]) if epochs == 0 else str(name)
        labels.append(label if state == "finished" else f"{label} ({state})")
    return labels
