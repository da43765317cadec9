"""Plans, status and tables on a real store: the cells of the last launch count, others are left out.

Run: python -m pytest tests/integration/plan/test_plan_store.py
"""

import dataclasses
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from analysis.select.compared import missing
from analysis.select.selection import current
from analysis.store.runs import load_runs
from analysis.table.summary import progress_note
from analysis.tables import table
from jepa_train.base.errors import ConfigError
from jepa_train.config.flat import cell_key, flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.cli.args import Options
from sweeps.engine.cli.main import _held
from sweeps.engine.cli.status import status as status_of
from sweeps.engine.plan.plan import Plan, make_plan
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.spec.cells import Cell, make_cell
from sweeps.engine.spec.sweep import BestOf, Sweep
from sweeps.engine.store.reader import best_config

FILE = Path("study.py")
GRID = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))
SEARCH = Sweep(
    name="study", purpose="A study.", base=DIGITS, space={"method.lamb": FloatDistribution(0.01, 0.1)}, trials=5
)
pytestmark = pytest.mark.usefixtures("results")


def launch(sweep: Sweep, *cells: Cell, status: str = "finished", file: Path = FILE) -> Plan:
    """Record cells that ended so, with scores that grow with lamb, in a launch that is then killed; return its plan."""
    plan = make_plan(sweep, file)
    ledger = Ledger(plan, note=print, publish=str)
    for cell in cells:
        ledger.start(cell, devices=1.0)
        ledger.log(cell.key, {"epoch": 1.0, "val/probe_top1": cell.config.method.lamb})
        ledger.end(cell.key, status, "")
    assert ledger.close() == ""
    return plan


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
    runs = load_runs("study")
    assert (len(current(runs)), len(missing(runs))) == (after.get("finished", 0), after["missing"])
    assert set(missing(runs)["epochs"]) == {edited.base.epochs}
    done = f"{after['finished']} finished, " if "finished" in after else ""
    assert progress_note(runs) == f"study: {done}{after['missing']} missing{left_out}"
    assert table("study", format="md").endswith(progress_note(runs))


def test_the_list_of_a_search_decides_which_candidates_count():
    search = dataclasses.replace(SEARCH, base=SHORT)
    inside, outside = at(0.02, search), at(0.09, search)
    launch(search, inside, outside)
    narrower = dataclasses.replace(search, space={"method.lamb": FloatDistribution(0.01, 0.05)})
    for sweep in (search, narrower):
        assert (status_of(sweep)["total"], status_of(sweep)["states"]) == (5, {"missing": 3, "finished": 2})
    assert set(current(load_runs("study"))["cell_key"]) == {inside.key, outside.key}
    assert launch(narrower).unknown == 4
    assert (status_of(narrower)["total"], status_of(narrower)["states"]) == (5, {"missing": 4, "finished": 1})
    runs = load_runs("study")
    assert current(runs)["cell_key"].tolist() == [inside.key]
    assert missing(runs).empty, "the points of later proposals are unknown"
    assert progress_note(runs) == "study: 1 finished, 1 outside the present grid left out"
    assert best_config("study").method.lamb == 0.02


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


def test_the_best_cell_of_a_sweep_is_of_its_present_base_and_no_reference():
    search = dataclasses.replace(SEARCH, references=({"method.lamb": 0.08},))
    left = dataclasses.replace(search, base=dataclasses.replace(DIGITS, epochs=3))
    launch(left, at(0.09, left))
    reference = launch(search, at(0.03, search), at(0.04, search)).fixed[0]
    launch(search, reference)
    launch(search, at(0.05, search), status="collapsed")
    best = make_plan(Sweep(name="other", purpose="", base=BestOf("study"), workers=2), Path("other.py"))
    assert (best.base.method.lamb, best.base.epochs) == (0.04, DIGITS.epochs)


def test_a_launch_begins_with_the_best_cell_at_the_time_when_it_holds_the_sweep():
    other = Sweep(name="other", purpose="", base=BestOf("study"))
    with pytest.raises(ConfigError, match=r"^base is the best cell of sweep 'study', which has no finished cell"):
        make_plan(other, Path("other.py"))
    launch(SEARCH, at(0.03))
    planned = make_plan(other, Path("other.py"))
    launch(SEARCH, at(0.04))
    with _held(other, Path("other.py"), planned, Options(), str) as now:
        assert (planned.base.method.lamb, now.base.method.lamb) == (0.03, 0.04)


def test_cells_on_other_images_than_the_bases_are_done():
    sweep = dataclasses.replace(GRID, grid={"data.name": ["digits"]}, seeds=(0,))
    config = make_plan(sweep, FILE).fixed[0].config
    other = dataclasses.replace(config, data=dataclasses.replace(DIGITS.data, fingerprint="f00"))
    launch(sweep, Cell(config=other, label="other images"))
    assert cell_key(other) in make_plan(sweep, FILE).entries
    assert cell_key(other) not in make_plan(dataclasses.replace(GRID, seeds=(0,)), FILE).entries


def test_a_reference_that_becomes_a_cell_of_the_grid_changes_its_role():
    sweep = dataclasses.replace(GRID, seeds=(0,), references=({"method.lamb": 0.1},))
    launch(sweep, make_plan(sweep, FILE).fixed[0])
    grown = dataclasses.replace(sweep, grid={"method.lamb": [0.02, 0.05, 0.1]}, references=())
    plan = launch(grown)
    assert plan.todo == 2
    assert make_plan(grown, FILE).entries[plan.fixed[2].key].role == "cell"


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
