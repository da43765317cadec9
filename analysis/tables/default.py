"""Any sweep without a table file: a grid as rows and columns of means over seeds, a search as its ranking.

A sweep may name rows, columns, metrics and labels in its field `table`; its experiment has them as the tag sweep.table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.select.compared import cells
from analysis.select.labels import axis_labels, metric_label
from analysis.select.metrics import ACCURACIES, RANK, accuracies, check_metrics, loss_terms, metrics_of
from analysis.select.objectives import Goal, goals_of
from analysis.select.selection import axes, current, grids_of, is_fair, references, searched, tags_of, with_scores
from analysis.select.tags import json_tag
from analysis.table.cells import Quantity, TableCell
from analysis.table.layout import FinishedTable
from analysis.table.pivot import PivotTable, that_differ
from analysis.table.ranking import ranked, winners, with_pareto_set
from analysis.table.render import render
from analysis.table.significance import seed_count_note

TITLE = "results"
WIDTH = 80  # of a terminal
NARROWEST = 6  # column
BLOCKS = (4, 3)  # metrics, where each is a block of rows: as many as fit, then one alone
_COLUMNS = {"method": "method_name"}  # axis -> column of the runs or of LABELS that has its values as names


@dataclass(frozen=True, kw_only=True)
class _Design:
    """The choices of a table: those of the sweep, else the default ones.

    Args:
        asked: the metrics are those that the user named: all are shown.
        labels: axis -> header.
    """

    rows: list[str]
    columns: list[str]
    quantities: list[Quantity]
    asked: bool
    labels: Mapping[str, str]


def build(runs: pd.DataFrame, metrics: Sequence[str] = (), note: str = "") -> pd.DataFrame:
    """The table of a sweep. As many metrics as fit into a terminal, the most important first, unless they are named.

    Of a grid the last axis gives the columns and the others rows, with a block of rows for each metric. Where that is
    too wide there is one metric; where that is too wide as well, all axes give rows and the metrics columns. A search
    has its candidates by rank, with the winner's seeds averaged, a fair ablation the winner at each point of its grid.

    Args:
        metrics: in place of the sweep's own choice.
        note: a line below the table.

    Raises:
        UnknownMetric: no run has one of the metrics.
    """
    check_metrics(runs, metrics)
    goals = goals_of(runs)
    runs = with_scores(runs)
    design = _design(runs, goals, metrics)
    by_rank = searched(runs) and not (is_fair(runs) and (design.rows or design.columns))
    frame, shown = (_search if by_rank else _grid)(runs, design)
    unit = "; top-1 in %" if any(one.factor == 100 for one in shown) else ""
    frame.attrs["title"] = f"{runs['sweep'].iloc[0]}: {frame.attrs.get('title', TITLE + unit)}"
    further = "" if design.asked else _further(runs, shown)
    frame.attrs["commands"] = [*filter(None, [note, further])]
    return frame


def _design(runs: pd.DataFrame, goals: Sequence[Goal], metrics: Sequence[str]) -> _Design:
    chosen = json_tag(tags_of(runs), "sweep.table") or {}
    labels = chosen.get("labels", {})
    asked = [*metrics] or chosen.get("metrics", [])
    done = current(runs)
    found = accuracies(done[done["status"] == "finished"])
    if not found:  # none yet, or, where no goal is one, none without labels
        found = [f"test/{ACCURACIES[0]}" if any(goal.metric.endswith("_top1") for goal in goals) else RANK]
    own = {goal.metric.replace("val/", "test/", 1) for goal in goals}  # on test, the protocol that ranks
    found = sorted(found, key=lambda name: name not in own)
    names = asked or dict.fromkeys([*(goal.name for goal in goals), *found])
    return _Design(
        rows=chosen.get("rows", []),
        columns=chosen.get("columns", []),
        quantities=[_quantity(name, goals, labels) for name in names],
        asked=bool(asked),
        labels=axis_labels(axes(runs)) | {key: label for key, label in labels.items() if key in axes(runs)},
    )


def _quantity(name: str, goals: Sequence[Goal], labels: Mapping[str, str]) -> Quantity:
    """An accuracy in percent, anything else as it is; a goal has its own direction."""
    goal, top1 = next((goal for goal in goals if goal.name == name), None), name.endswith("_top1")
    label = metric_label(name)
    if goal is not None and goal.over:
        label = f"{metric_label(goal.metric)} / {axis_labels([goal.over])[goal.over]}^{goal.power:g}"
    return Quantity(
        label=labels.get(name, label),
        metric=name,
        direction=goal.direction if goal is not None else "max" if top1 else "",
        factor=100.0 if top1 else 1.0,
        spec=".2f" if top1 else ".4g",
    )


def _grid(runs: pd.DataFrame, design: _Design) -> tuple[pd.DataFrame, list[Quantity]]:
    """A table over the axes of a grid, and its metrics; references are rows below, or a note where axes are columns."""
    found = cells(runs)
    for rows, columns, shown in _layouts(runs, found, design):
        frame = PivotTable(
            rows={_COLUMNS.get(axis, axis): design.labels.get(axis, axis) for axis in rows},
            columns={_COLUMNS.get(axis, axis): design.labels[axis] for axis in columns},
            quantities=shown,
            quantities_in="rows" if columns else "columns",
        ).of(found)
        if columns and sum(_widths(frame)) < WIDTH:
            break
    if columns and len(shown) == 1:  # no header names it
        frame.attrs["title"] = shown[0].label + (" (%)" if shown[0].factor == 100 else "")
    count = len(references(runs))
    if count:
        in_note = design.quantities[: BLOCKS[0]] if columns else shown  # an untrained encoder has no online probe
        plain = [replace(one, direction="") for one in in_note]  # bold numbers are the best of the grid
        frame = _with_references(frame, ranked(runs, plain).tail(count))
    return (frame, shown) if design.asked or columns else _cut(frame, shown)


def _with_references(frame: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """A grid with its references as rows below, or as notes where its columns are axes."""
    if len(frame.columns) != len(compared.columns) or frame.columns.names != [""]:
        rows = (", ".join(f"{label} {cell}" for label, cell in row.items() if cell.n) for _, row in compared.iterrows())
        frame.attrs["notes"] = [f"{name}: {text}" for name, text in zip(compared.index, rows, strict=True) if text]
        return frame
    places = [(name, *[""] * (frame.index.nlevels - 1)) for name in compared.index]
    compared.columns = frame.columns
    compared.index = pd.MultiIndex.from_tuples(places) if frame.index.nlevels > 1 else compared.index
    return pd.concat([frame, compared]).rename_axis(frame.index.names)


def _layouts(
    runs: pd.DataFrame, found: pd.DataFrame, design: _Design
) -> Iterator[tuple[list[str], list[str], list[Quantity]]]:
    """The axes of rows and of columns, and the metrics, in order of preference."""
    grid = [axis for axis in axes(runs) if axis not in searched(runs)]
    chosen, numbers = [*design.rows, *design.columns], design.quantities
    sizes = dict.fromkeys(min(most, len(numbers)) for most in BLOCKS)
    blocks = [numbers] if design.asked else [numbers[:size] for size in sizes]
    if chosen:
        further = [axis for axis in grid if axis not in chosen]
        further = that_differ(found, chosen, further) if design.rows else further
        yield [*further, *design.rows] or ["method"], design.columns, blocks[0] if design.columns else numbers
        return
    everywhere = bool(grid) and all(value != "" for one in grids_of(runs) for value in one.get(grid[-1], []))
    if len(grid) > 1 and everywhere and that_differ(found, grid[:-1], grid[-1:]):
        places = [(grid[:-1], grid[-1:]), *([(grid[1:], grid[:1])] if len(grid) == 2 else [])]
        places = [(rows, columns) for rows, columns in places if NARROWEST * found[columns[0]].nunique() < WIDTH]
        for shown in blocks if design.asked else [*blocks, [_main(numbers)]]:
            for rows, columns in places:
                yield rows, columns, shown
    yield grid or ["method"], [], numbers


def _main(numbers: Sequence[Quantity]) -> Quantity:
    """The metric that a table shows if it shows one: the first accuracy on test, else the first goal."""
    return next((one for one in numbers if one.metric.startswith("test/")), numbers[0])


def _search(runs: pd.DataFrame, design: _Design) -> tuple[pd.DataFrame, list[Quantity]]:
    """A ranking without bold numbers, or the winners of a fair ablation with the best of them bold, and its metrics."""
    numbers = design.quantities
    if is_fair(runs):
        numbers = [one if one.metric.startswith("test/") else replace(one, direction="") for one in numbers]
        settings = [Quantity(label=design.labels[axis], metric=axis) for axis in searched(runs)]
        frame = winners(runs, [*settings, *numbers])
        frame.index = frame.index.set_names([design.labels[str(axis)] for axis in frame.index.names])
    else:
        numbers = [replace(one, direction="") for one in numbers]
        settings = [Quantity(label=design.labels[axis], metric=axis) for axis in axes(runs)]
        runs, settings = with_pareto_set(runs, settings)
        frame = ranked(runs, [*settings, *numbers])
    return (frame, numbers) if design.asked else _cut(frame, numbers, len(settings))


def _cut(frame: pd.DataFrame, numbers: list[Quantity], before: int = 0) -> tuple[pd.DataFrame, list[Quantity]]:
    """The table without the last metrics that make it wider than a terminal; the main one stays.

    Args:
        before: number of columns before those of the metrics.
    """
    widths, main = _widths(frame), numbers.index(_main(numbers))
    left_out, total, first = set(), sum(widths), frame.index.nlevels + before
    for at in reversed(range(len(numbers))):
        if total >= WIDTH and at != main:
            left_out.add(at)
            total -= widths[first + at]
    kept = [position for position in range(len(frame.columns)) if position - before not in left_out]
    return frame.iloc[:, kept], [one for at, one in enumerate(numbers) if at not in left_out]


def _widths(frame: pd.DataFrame) -> list[int]:
    """The widths of a table's columns in Markdown, as if every number that may be bold is."""

    def emboldened(value: Any) -> Any:
        is_compared = isinstance(value, TableCell) and value.quantity is not None and value.quantity.direction
        return replace(value, bold=True) if is_compared and value.n else value

    bold = frame.map(emboldened)
    seed_count_note(bold)  # sets the number of seeds that cells do not print
    rule = render(FinishedTable(frame=bold)).splitlines()[1]
    return [len(part) + 1 for part in rule.strip("|").split("|")]


def _further(runs: pd.DataFrame, shown: Sequence[Quantity]) -> str:
    """Note on metrics that the table leaves out: the loss with its terms, and accuracies.

    Most accuracies of z are left out: they are named as those of the encoder, with `projector`.
    """
    listed = [name for name in accuracies(runs) if name.partition("/")[2] in ACCURACIES or "projector" not in name]
    names = [*({"train/loss"} & {*metrics_of(runs)}), *loss_terms(runs), *listed]
    rest = [name for name in names if name not in {one.metric for one in shown}]
    return f"further metrics, by --metrics NAME,NAME: {', '.join(rest)}" if rest else ""
