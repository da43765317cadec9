"""Numbers of new and dropped cells after an edit of a sweep's file.

Run: python -m pytest tests/unit/plan/test_edits.py
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from simulated_sweep import entry_of, plan_of

from analysis.store.cell_list import to_tags
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.edits import edits_of
from sweeps.engine.spec.cells import make_cell
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import StoredSweep

GRID = Sweep(name="study", purpose="", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))
SPACE = {"method.lamb": FloatDistribution(0.01, 0.1)}
SEARCH = Sweep(name="study", purpose="", base=DIGITS, space=SPACE, trials=4, seeds=(0, 1), references=({"epochs": 0},))
LONGER = dataclasses.replace(DIGITS, epochs=DIGITS.epochs + 1)


def edits_after(sweep: Sweep, edit: Mapping[str, Any], begun: int, *, unborn: int = 0, **rules: Any) -> tuple[int, int]:
    """The numbers of new and of dropped cells of a sweep whose last launch began so many cells.

    Args:
        begun: of a search: candidates with a higher and higher score.
        unborn: cells of a search that are in the list and have no run yet.
    """
    planned = plan_of(sweep)
    cells = planned.fixed[:begun]
    if sweep.space:
        cells = planned.fixed + tuple(make_cell(sweep, DIGITS, {"method.lamb": 0.01 * n}) for n in range(1, 1 + begun))
    entries = [entry_of(cell, metrics={"val/probe_top1": cell.config.method.lamb}) for cell in cells]
    known = plan_of(sweep, entries)
    listed = [cell.key for cell in known.known if cell in cells or not sweep.space or known.unknown == 0]
    tags = to_tags([*listed, *(f"{number:016}" for number in range(unborn))])
    tags |= {"sweep.total": str(known.total), "sweep.searched": json.dumps([*sweep.space])}
    kept = [entry for entry in entries if "base" not in edit]
    edited = plan_of(dataclasses.replace(sweep, **edit), kept, **rules)
    edits = edits_of(dataclasses.replace(edited, stored=StoredSweep(tags=tags, cells=tuple(entries))))
    return edits["new"], edits["dropped"]


CASES = {  # -> sweep, edit, cells that have begun; new, dropped
    "nothing": (GRID, {}, 3, 0, 0),
    "value added": (GRID, {"grid": {"method.lamb": [0.02, 0.05, 0.1]}}, 3, 2, 0),
    "value removed": (GRID, {"grid": {"method.lamb": [0.05]}}, 3, 0, 2),
    "value exchanged, seed added": (GRID, {"grid": {"method.lamb": [0.05, 0.1]}, "seeds": (0, 1, 2)}, 0, 4, 2),
    "base": (GRID, {"base": LONGER}, 3, 4, 4),
    "axis added at the base's value": (GRID, {"grid": {**GRID.grid, "optim.lr": [DIGITS.optim.lr]}}, 4, 0, 0),
    "grid becomes search": (GRID, {"grid": {}, "space": SPACE, "trials": 4}, 0, 5, 4),
    "nothing, in a search": (SEARCH, {}, 2, 0, 0),
    "nothing, after a search": (SEARCH, {}, 4, 0, 0),
    "trials added": (SEARCH, {"trials": 7}, 4, 3, 0),
    "trials added, in a search": (SEARCH, {"trials": 7}, 2, 3, 0),
    "space narrowed": (SEARCH, {"space": {"method.lamb": FloatDistribution(0.015, 0.1)}}, 2, 1, 1),
    "seed added to a search": (SEARCH, {"seeds": (0, 1, 2)}, 4, 1, 0),
    "base of a search": (SEARCH, {"base": LONGER}, 2, 2, 2),
    "reference removed": (SEARCH, {"references": ()}, 2, 0, 1),
}


@pytest.mark.parametrize(("sweep", "edit", "begun", "new", "dropped"), CASES.values(), ids=CASES)
def test_edits_are_counted_against_the_last_launch(sweep: Sweep, edit: dict, begun: int, new: int, dropped: int):
    assert edits_after(sweep, edit, begun) == (new, dropped)


def test_a_search_that_runs_or_is_retried_is_no_edit():
    assert edits_after(SEARCH, {}, 2, unborn=1, held=True) == (0, 0)
    assert edits_after(SEARCH, {}, 4, retry=frozenset({"finished"})) == (0, 0), "its winner is open again"


def test_without_a_launch_that_recorded_its_cells_there_are_no_edits():
    assert edits_of(plan_of(GRID)) == {"new": 0, "dropped": 0}
