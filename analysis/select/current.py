"""The runs of the cells that a sweep asks for: one answer for tables, figures, --status and the best cell of a sweep.

A launch records the keys of these cells in the tags of the sweep's experiment. Needs no pandas.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from analysis.store.cell_list import recorded_cells


class CellRun(NamedTuple):
    """One cell's run, reduced to the fields that the selection reads.

    Args:
        of_present_base: it shares the configuration that the cells of the sweep's last launch have in common.
        values: its parameters, the axes and the seed at least.
    """

    key: str
    role: str
    of_present_base: bool
    values: Mapping[str, Any]


def are_current(tags: Mapping[str, str], runs: Iterable[CellRun]) -> list[bool]:
    """For each run, true if the sweep asks for its cell or reference.

    The recorded list of cells decides. In a store or an export without that list: for references their own list, for
    cells base, grid and seeds.

    Args:
        tags: of the sweep's experiment.
    """
    requested = recorded_cells(tags)
    if requested is not None:
        listed = {*requested}
        return [run.key in listed for run in runs]
    references, seeds = json_tag(tags, "sweep.references"), json_tag(tags, "sweep.seeds")
    seed = {"seed": seeds} if seeds else {}
    grids = [{key: {*map(canonical, values)} for key, values in (seed | grid).items()} for grid in recorded_grids(tags)]

    def is_current(run: CellRun) -> bool:
        if run.role != "cell":
            return run.role == "reference" and (references is None or run.key in references)
        return run.of_present_base and any(
            all(canonical(run.values.get(key)) in listed for key, listed in grid.items()) for grid in grids
        )

    return [*map(is_current, runs)]


def recorded_grids(tags: Mapping[str, str]) -> list[dict[str, list[Any]]]:
    """Every grid with values for each axis of any; one empty grid where the sweep has none."""
    return json_tag(tags, "sweep.grid") or [{}]


def json_tag(tags: Mapping[str, str], name: str) -> Any:
    """The value of a JSON tag of the sweep; None in a store without that tag."""
    return json.loads(tags[name]) if name in tags else None


def canonical(value: Any) -> float | str:
    """A parameter's value for comparison: 1, 1.0 and "1.0" are equal, and "" stands for no value, as in the grid."""
    text = str(value)
    if value is None or text in ("nan", "<NA>"):
        return ""
    try:
        return float(text)
    except ValueError:
        return text
