"""Plans, status and tables on a real store: the cells of the last launch count, others are left out.

Run: python -m pytest tests/integration/plan/test_plan_store.py
"""

import dataclasses
from pathlib import Path

import pytest
from launches import record
from optuna.distributions import FloatDistribution

from analysis.runs import NothingToShow, load_runs
from analysis.select.compared import missing
from analysis.select.selection import current
from analysis.table.summary import progress_note
from analysis.tables import table
from jepa_train.base.errors import ConfigError
from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.cli.args import Options
from sweeps.engine.cli.modes import _held
from sweeps.engine.cli.status import status as status_of
from sweeps.engine.plan.plan import Plan, make_plan
from sweeps.engine.spec.cells import Cell, make_cell
from sweeps.engine.spec.sweep import BestOf, Sweep

FILE = Path("study.py")
GRID = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))
SEARCH = Sweep(
    name="study", purpose="A study.", base=DIGITS, space={"method.lamb": FloatDistribution(0.01, 0.1)}, trials=5
)
pytestmark = pytest.mark.usefixtures("results")


def launch(sweep: Sweep, *cells: Cell, status: str = "finished", file: Path = FILE) -> Plan:
    """Record cells that ended so, with scores that grow with lamb, in a launch that is then killed; return its plan."""

    def last(cell: Cell) -> dict[str, float]:
        return {"epoch": float(cell.config.epochs), "val/probe_top1": cell.config.method.lamb}

    return record(make_plan(sweep, file), cells, last, status=status)


def at(lamb: float, sweep: Sweep = SEARCH) -> Cell:
    return make_cell(sweep, sweep.base, {"method.lamb": lamb})


SHORT = dataclasses.replace(DIGITS, epochs=1)
EDITS = {  # -> the sweep's file afterwards; states after its next launch; what tables leave out
    "value added": ({"grid": {"method.lamb": [0.02, 0.05, 0.1]}}, {"missing": 4, "finished": 2}, ""),
    "value removed": (
        {"grid": {"method.lamb": [0.02]}},
        {"missing": 1, "finished": 1},
        ", 1 outside the present grid left out",
    ),
    "base changed": (
        {"base": dataclasses.replace(DIGITS, epochs=3)},
        {"missing": 4},
        ", 2 of another configuration left out (they differ in epochs)",
    ),
}


@pytest.mark.parametrize(("edit", "after", "left_out"), EDITS.values(), ids=EDITS)
def test_status_and_tables_follow_the_last_launch(edit: dict, after: dict, left_out: str):
    grid = dataclasses.replace(GRID, base=SHORT)
    plan = make_plan(grid, FILE)
    run = [plan.fixed[0], plan.fixed[2]]  # both values with the first seed
    launch(grid, *run)
    edited = dataclasses.replace(grid, **edit)
    for sweep in (grid, edited):
        assert status_of(sweep)["states"] == {"missing": 2, "finished": 2}, "whatever the file says now"
    runs = load_runs("study")
    assert set(current(runs)["cell_key"]) == {cell.key for cell in run}
    planned = launch(edited)
    assert planned.total - planned.todo == after.get("finished", 0), "resume finds finished cells by their keys"
    assert status_of(edited)["states"] == after
    runs = load_runs("study", stale=True)
    assert (len(current(runs)), len(missing(runs))) == (after.get("finished", 0), after["missing"])
    if "finished" in after:
        assert [*load_runs("study")["cell_key"]] == [*current(runs)["cell_key"]], "only those by default"
    else:
        with pytest.raises(NothingToShow, match=r"^sweep study has 2 runs, but none that its last launch asked for;"):
            load_runs("study")
    assert set(missing(runs)["epochs"]) == {edited.base.epochs}
    done = f"{after['finished']} finished, " if "finished" in after else ""
    assert progress_note(runs) == f"study: {done}{after['missing']} missing{left_out}"
    assert table("study", format="md").endswith(progress_note(runs))


def test_parameters_come_back_in_the_types_of_their_fields():
    places = dataclasses.replace(DIGITS, data=dataclasses.replace(DIGITS.data, path="007"))
    sweep = dataclasses.replace(GRID, base=places)
    cell = make_plan(sweep, FILE).fixed[0]
    launch(sweep, cell)
    (row,) = load_runs("study").to_dict("records")
    config = flatten(cell.config)
    assert {key: (row[key], type(row[key])) for key in config} == {
        key: (config[key], type(config[key])) for key in config
    }


def test_the_base_is_the_best_cell_of_the_present_base_at_the_time_when_the_launch_holds_the_sweep():
    other, file = Sweep(name="other", purpose="", base=BestOf("study")), Path("other.py")
    with pytest.raises(ConfigError, match=r"^base is the best cell of sweep 'study', which has no winner"):
        make_plan(other, file)
    search = dataclasses.replace(SEARCH, references=({"method.lamb": 0.08},))
    left = dataclasses.replace(search, base=dataclasses.replace(DIGITS, epochs=3))
    launch(left, at(0.09, left))
    reference = launch(search, at(0.03, search)).fixed[0]
    launch(search, reference)
    launch(search, at(0.05, search), status="collapsed")
    planned = make_plan(other, file)
    launch(search, at(0.04, search))
    with _held(other, file, planned, Options(), str) as now:
        assert [(base.method.lamb, base.epochs) for base in (planned.base, now.base)] == [
            (0.03, DIGITS.epochs),
            (0.04, DIGITS.epochs),
        ]


def test_one_sweep_name_belongs_to_one_file(tmp_path: Path):
    first, second = (tmp_path / folder / "study.py" for folder in ("a", "b"))
    for file in (first, second):
        file.parent.mkdir()
        file.touch()
    launch(GRID, file=first)
    with pytest.raises(ConfigError, match=r"^name 'study' must belong to one sweep file"):
        make_plan(GRID, second)
    first.unlink()  # moved, not copied
    assert make_plan(GRID, second).todo == 4
