"""The ledger and the plan made of it: what is done stays done, what was begun is resumed, what has left stays out."""

import dataclasses
import re
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from analysis.select.compared import missing
from analysis.select.selection import current
from analysis.store.cell_list import to_tags
from analysis.store.runs import load_runs
from analysis.table.summary import progress_note
from analysis.tables import table
from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.config.flat import cell_key, flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.cli.args import Options
from sweeps.engine.cli.main import _held
from sweeps.engine.cli.status import status as status_of
from sweeps.engine.plan.describe import open_ledger
from sweeps.engine.plan.plan import Plan, make_plan
from sweeps.engine.spec.cells import Cell, make_cell
from sweeps.engine.spec.objective import Asha
from sweeps.engine.spec.search_space import all_points, contains, point_of, size
from sweeps.engine.spec.sweep import BestOf, Sweep
from sweeps.engine.store.ledger import Ledger
from sweeps.engine.store.reader import best_config, store_uri

FILE = Path("study.py")
GRID = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))
SEARCH = Sweep(
    name="study", purpose="A study.", base=DIGITS, space={"method.lamb": FloatDistribution(0.01, 0.1)}, trials=5
)
METRICS = {"epoch": 1.0, "val/probe_top1": 0.5}


@pytest.fixture(autouse=True)
def store(results: Path) -> Path:
    """An empty store of this test's own."""
    return results / "mlflow.db"


def opened(plan: Plan) -> Ledger:
    """The ledger of a sweep without a table."""
    return open_ledger(plan, note=print, publish=lambda: "")


def record(plan: Plan, cell, status: str, *, value: float = 0.5) -> None:
    """A cell that has been run; "running" was left so by a driver that was killed."""
    ledger = opened(plan)
    ledger.start(cell, devices=1.0)
    ledger.log(cell.key, METRICS | {"val/probe_top1": value})
    if status != "running":
        ledger.end(cell.key, status, "")
    assert ledger.close() == ""


def launch(sweep: Sweep, *cells: Cell) -> Plan:
    """A launch that is killed when these cells have finished; the plan that it had made."""
    plan = make_plan(sweep, FILE)
    opened(plan).close()
    for cell in cells:
        record(plan, cell, "finished")
    write_list([*(cell.key for cell in plan.known), *(cell.key for cell in cells)])
    return plan


def write_list(keys: list[str]) -> None:
    """The list of cells in the tags of the sweep's experiment."""
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study").experiment_id
    for name, text in to_tags(keys).items():
        client.set_experiment_tag(experiment, name, text)


def remove_list() -> None:
    """Store as one from before the list."""
    client = MlflowClient(store_uri())
    client.set_experiment_tag(client.get_experiment_by_name("study").experiment_id, "sweep.cells", "")


def test_planning_writes_nothing(store: Path):
    store.unlink()
    plan = make_plan(GRID, FILE)
    assert (plan.total, plan.todo) == (4, 4)
    assert list(store.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "state", "due"),
    [
        ("finished", "finished", False),
        ("diverged", "diverged", False),
        ("collapsed", "collapsed", False),
        ("failed", "failed", False),
        ("interrupted", "missing", True),
        ("running", "missing", True),
        ("pruned", "pruned", True),  # the sweep has no early stopping any more
    ],
)
def test_what_is_over_is_done_and_what_was_begun_is_missing(status: str, state: str, due: bool):
    plan = make_plan(GRID, FILE)
    record(plan, plan.fixed[0], status)
    plan = make_plan(GRID, FILE)
    assert plan.state(plan.fixed[0]) == state
    assert (plan.fixed[0] in plan.missing) == due
    assert plan.todo == 3 + due


def test_what_failed_runs_again_on_request_alone():
    plan = make_plan(GRID, FILE)
    record(plan, plan.fixed[0], "failed")
    assert make_plan(GRID, FILE, retry=frozenset({"failed"})).todo == 4
    (row, *_) = make_plan(GRID, FILE, retry=frozenset({"failed"})).rows()
    assert (row.state, row.note, row.due) == ("failed", "runs again", True)


def test_what_was_stopped_early_stays_so_while_the_sweep_stops_early():
    plan = make_plan(GRID, FILE)
    record(plan, plan.fixed[0], "pruned")
    assert make_plan(dataclasses.replace(GRID, early_stopping=Asha(first=1)), FILE).todo == 3


def test_a_living_launch_makes_the_difference_between_running_and_begun():
    plan = make_plan(GRID, FILE)
    record(plan, plan.fixed[0], "running")
    rows = [make_plan(GRID, FILE, held=held).rows()[0] for held in (False, True)]
    assert [(row.state, row.note, row.due) for row in rows] == [
        ("missing", "begun, epoch 1 of 50", True),
        ("running", "epoch 1 of 50", False),
    ]


def test_a_cell_that_runs_again_goes_on_in_its_run():
    plan = make_plan(GRID, FILE)
    record(plan, plan.fixed[0], "interrupted")
    record(plan, plan.fixed[0], "finished")
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study").experiment_id
    (run,) = client.search_runs([experiment], f"tags.cell_key = '{plan.fixed[0].key}'")
    assert run.data.tags["status"] == "finished"
    assert run.info.status == "FINISHED"


def test_a_longer_grid_runs_the_difference():
    plan = make_plan(GRID, FILE)
    for cell in plan.fixed:
        record(plan, cell, "finished")
    longer = dataclasses.replace(GRID, grid={"method.lamb": [0.02, 0.05, 0.1]}, seeds=(0, 1, 2))
    assert [cell.label for cell in make_plan(longer, FILE).missing] == [
        "lamb=0.02 seed=2",
        "lamb=0.05 seed=2",
        "lamb=0.1 seed=0",
        "lamb=0.1 seed=1",
        "lamb=0.1 seed=2",
    ]


def test_cells_of_an_earlier_base_are_not_done():
    plan = make_plan(GRID, FILE)
    record(plan, plan.fixed[0], "finished")
    edited = dataclasses.replace(GRID, base=dataclasses.replace(DIGITS, epochs=3))
    assert make_plan(edited, FILE).todo == 4
    assert make_plan(edited, FILE).entries == {}


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


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("edit", "after", "left_out"), EDITS.values(), ids=EDITS)
def test_status_and_tables_follow_the_last_launch(edit: dict, after: dict, left_out: str, listed: bool):
    grid = dataclasses.replace(GRID, base=SHORT)
    plan = make_plan(grid, FILE)
    run = [plan.fixed[0], plan.fixed[2]]  # both values with the first seed
    launch(grid, *run)
    if not listed:
        remove_list()
    edited = dataclasses.replace(grid, **edit)
    for sweep in (grid, edited) if listed else (grid,):
        assert status_of(sweep)["states"] == {"missing": 2, "finished": 2}, "whatever the file says now"
    runs = load_runs("study")
    assert set(current(runs)["cell_key"]) == {cell.key for cell in run}
    assert progress_note(runs) == "study: 2 finished, 2 missing"
    planned = launch(edited)
    assert planned.total - planned.todo == after.get("finished", 0), "resume finds what is done by its key"
    if not listed:
        remove_list()
    assert status_of(edited)["states"] == after
    runs = load_runs("study")
    if not listed and not after.get("finished"):
        assert progress_note(runs) == "study: 2 finished, 2 missing", "the base before, until a cell has begun"
        return
    assert len(current(runs)) == after.get("finished", 0)
    assert len(missing(runs)) == after["missing"]
    assert set(missing(runs)["epochs"]) == {edited.base.epochs}
    done = f"{after['finished']} finished, " if "finished" in after else ""
    assert progress_note(runs) == f"study: {done}{after['missing']} missing{left_out}"
    assert table("study", format="md").endswith(progress_note(runs))


def test_the_list_of_a_search_decides_which_candidates_count():
    search = dataclasses.replace(SEARCH, base=SHORT)
    plan = make_plan(search, FILE)
    inside, outside = (make_cell(search, plan.base, {"method.lamb": lamb}) for lamb in (0.02, 0.09))
    launch(search, inside, outside)
    narrower = dataclasses.replace(search, space={"method.lamb": FloatDistribution(0.01, 0.05)})
    for sweep in (search, narrower):
        assert (status_of(sweep)["total"], status_of(sweep)["states"]) == (5, {"missing": 3, "finished": 2})
    assert set(current(load_runs("study"))["cell_key"]) == {inside.key, outside.key}
    assert launch(narrower).unknown == 4
    assert (status_of(narrower)["total"], status_of(narrower)["states"]) == (5, {"missing": 4, "finished": 1})
    runs = load_runs("study")
    assert current(runs)["cell_key"].tolist() == [inside.key]
    assert missing(runs).empty, "nobody knows where the proposals to come lie"
    assert progress_note(runs) == "study: 1 finished, 1 outside the present grid left out"
    assert best_config("study").method.lamb == 0.02


def test_a_cell_that_is_proposed_and_has_no_run_is_missing():
    two = dataclasses.replace(SEARCH, trials=2)
    cell = make_cell(two, make_plan(two, FILE).base, {"method.lamb": 0.02})
    launch(two, cell)
    write_list([cell.key, *(f"{number:016x}" for number in range(4))])
    assert status_of(two)["states"] == {"missing": 4, "finished": 1}


def test_parameters_come_back_in_the_types_of_their_fields():
    places = dataclasses.replace(DIGITS, data=dataclasses.replace(DIGITS.data, path="007"))
    plan = make_plan(dataclasses.replace(GRID, base=places), FILE)
    record(plan, plan.fixed[0], "finished")
    (row,) = load_runs("study").to_dict("records")
    config = flatten(plan.fixed[0].config)
    assert config["data.path"] == "007"
    assert {key: row[key] for key in config} == config
    assert {key: type(row[key]) for key in config} == {key: type(value) for key, value in config.items()}


def test_a_search_resumes_what_was_begun_before_it_proposes_more():
    plan = make_plan(SEARCH, FILE)
    assert (plan.total, plan.unknown) == (5, 5)
    for lamb, status in ((0.02, "finished"), (0.03, "diverged"), (0.04, "interrupted"), (0.05, "failed")):
        record(plan, make_cell(SEARCH, plan.base, {"method.lamb": lamb}), status)
    plan = make_plan(SEARCH, FILE)
    assert [cell.config.method.lamb for cell in plan.missing] == [0.04]
    assert {cell.key for cell in plan.missing} <= set(plan.entries)  # the same cell, so the same run
    assert (plan.unknown, plan.todo, plan.total) == (1, 2, 5)
    again = make_plan(SEARCH, FILE, retry=frozenset({"failed"}))
    assert sorted(cell.config.method.lamb for cell in again.missing) == [0.04, 0.05]
    (search,) = plan.searches
    assert [candidate.cell.config.method.lamb for candidate in search.candidates] == [
        0.02,
        0.03,
        0.04,
        0.05,
    ]  # as begun


def test_points_outside_an_edited_space_do_not_count():
    plan = make_plan(SEARCH, FILE)
    record(plan, make_cell(SEARCH, plan.base, {"method.lamb": 0.09}), "finished")
    narrower = dataclasses.replace(SEARCH, space={"method.lamb": FloatDistribution(0.01, 0.05)})
    assert make_plan(narrower, FILE).unknown == 5
    assert make_plan(SEARCH, FILE).unknown == 4


def test_a_finite_space_has_no_more_trials_than_points():
    finite = dataclasses.replace(SEARCH, space={"method.num_slices": CategoricalDistribution([64, 128, 256])})
    assert make_plan(finite, FILE).unknown == 3


@pytest.mark.parametrize(
    ("domain", "points"),
    [
        (CategoricalDistribution([1, 2, 3]), 3),
        (IntDistribution(2, 10, step=4), 3),
        (FloatDistribution(0.0, 0.3, step=0.1), 4),
        (FloatDistribution(0.25, 0.25), 1),
        (FloatDistribution(0.0, 0.3), float("inf")),
    ],
)
def test_size_of_a_space(domain, points: float):
    space = {"a": domain, "b": CategoricalDistribution(["x", "y"])}
    assert size(space) == 2 * points
    if points < float("inf"):
        listed = all_points(space)
        assert len({tuple(point.values()) for point in listed}) == 2 * points
        assert all(contains(domain, point["a"]) for point in listed)


def test_points_are_read_back_in_their_types():
    space = {"a": CategoricalDistribution([1, 2.5, True]), "b": IntDistribution(1, 9), "c": FloatDistribution(0.0, 1.0)}
    assert point_of(space, {"a": "2.5", "b": "3", "c": "1"}) == {"a": 2.5, "b": 3, "c": 1.0}
    assert point_of(space, {"a": "3", "b": "3", "c": "1"}) is None
    assert point_of(space, {"a": "1", "b": "10", "c": "1"}) is None
    assert point_of(space, {"a": "1.0", "b": "9", "c": "1"}) == {"a": 1, "b": 9, "c": 1.0}  # the field is a float
    assert point_of({"d": IntDistribution(2, 10, step=4)}, {"d": "4"}) is None
    assert point_of({"d": IntDistribution(2, 10, step=4)}, {"d": "6"}) == {"d": 6}
    assert point_of({"d": FloatDistribution(0.1, 0.7, step=0.2)}, {"d": "0.5"}) == {"d": 0.5}
    assert point_of({"d": FloatDistribution(0.1, 0.7, step=0.2)}, {"d": "0.6"}) is None
    assert point_of({"no.such": FloatDistribution(0.1, 0.7)}, {"d": "0.6"}) is None


@pytest.mark.parametrize("listed", [True, False])
def test_the_best_cell_of_a_sweep_is_of_its_present_base_and_no_reference(listed: bool):
    search = dataclasses.replace(SEARCH, references=({"method.lamb": 0.0},))
    left = dataclasses.replace(search, base=dataclasses.replace(DIGITS, epochs=3))
    before = make_plan(left, FILE)
    record(before, make_cell(left, before.base, {"method.lamb": 0.02}), "finished", value=0.99)
    plan = make_plan(search, FILE)
    record(plan, plan.fixed[0], "finished", value=0.98)
    record(plan, make_cell(search, plan.base, {"method.lamb": 0.03}), "finished", value=0.6)
    record(plan, make_cell(search, plan.base, {"method.lamb": 0.04}), "finished", value=0.7)
    record(plan, make_cell(search, plan.base, {"method.lamb": 0.05}), "collapsed", value=0.8)
    launch(search) if listed else remove_list()
    best = make_plan(Sweep(name="other", purpose="", base=BestOf("study"), workers=2), Path("other.py"))
    assert best.base.method.lamb == 0.04
    assert best.base.epochs == DIGITS.epochs


def test_a_launch_begins_with_the_best_cell_of_when_it_holds_the_sweep():
    plan = make_plan(SEARCH, FILE)
    record(plan, make_cell(SEARCH, plan.base, {"method.lamb": 0.03}), "finished", value=0.6)
    launch(SEARCH)
    other = Sweep(name="other", purpose="", base=BestOf("study"))
    planned = make_plan(other, Path("other.py"))
    record(plan, make_cell(SEARCH, plan.base, {"method.lamb": 0.04}), "finished", value=0.7)
    launch(SEARCH)
    with _held(other, Path("other.py"), planned, Options(), str) as now:
        assert (planned.base.method.lamb, now.base.method.lamb) == (0.03, 0.04)


def test_the_best_cell_of_a_sweep_that_is_not_there():
    with pytest.raises(ConfigError, match=r"^base is the best cell of sweep 'study', which has no finished cell"):
        make_plan(Sweep(name="other", purpose="", base=BestOf("study")), Path("other.py"))


def test_an_entry_says_when_its_cell_ran_and_with_which_code():
    plan = make_plan(GRID, FILE)
    began = time.time() * 1000
    record(plan, plan.fixed[0], "finished")
    record(plan, plan.fixed[1], "running")
    entries = make_plan(GRID, FILE).entries
    done, open_ = entries[plan.fixed[0].key], entries[plan.fixed[1].key]
    assert began - 1 <= done.start_time <= done.end_time <= open_.start_time <= time.time() * 1000
    assert open_.end_time is None
    assert re.fullmatch("[0-9a-f]{40}|unknown", done.commit)
    assert done.params == {key: str(value) for key, value in flatten(plan.fixed[0].config).items()}


def test_cells_of_a_grid_for_each_method_are_all_of_the_present_grid():
    """What a method lacks, and what another method has by its own default, excludes no cell."""
    grids = [
        {"method": ["lejepa"], "method.lamb": [0.02, 0.05]},
        {"method": ["rectified_lpjepa"], "method.mu": [0.0], "method.num_slices": [64]},
    ]
    sweep = dataclasses.replace(GRID, grid=grids, seeds=(0,))
    plan = make_plan(sweep, FILE)
    assert plan.total == 3
    for cell in plan.fixed:
        record(plan, cell, "finished")
    assert make_plan(sweep, FILE).todo == 0
    runs = load_runs("study", store_uri())
    assert set(current(runs)["cell_key"]) == {cell.key for cell in plan.fixed}


def test_cells_on_other_images_than_the_bases_are_done():
    sweep = dataclasses.replace(GRID, grid={"data.name": ["digits"]}, seeds=(0,))
    plan = make_plan(sweep, FILE)
    other = dataclasses.replace(plan.fixed[0].config, data=dataclasses.replace(DIGITS.data, fingerprint="f00"))
    record(plan, Cell(config=other, label="other images"), "finished")
    assert cell_key(other) in make_plan(sweep, FILE).entries
    assert cell_key(other) not in make_plan(dataclasses.replace(GRID, seeds=(0,)), FILE).entries


def test_a_reference_that_becomes_a_cell_of_the_grid_changes_its_role():
    sweep = dataclasses.replace(GRID, seeds=(0,), references=({"method.lamb": 0.1},))
    plan = make_plan(sweep, FILE)
    record(plan, plan.fixed[0], "finished")
    grown = dataclasses.replace(sweep, grid={"method.lamb": [0.02, 0.05, 0.1]}, references=())
    plan = make_plan(grown, FILE)
    assert plan.todo == 2
    opened(plan).close()
    assert make_plan(grown, FILE).entries[plan.fixed[2].key].role == "cell"


def test_other_images_than_the_bases_are_identified_anew(tmp_path: Path):
    for name, classes in (("one", "ab"), ("two", "abc")):
        for split in ("train", "test"):
            for label in classes:
                folder = tmp_path / name / split / label
                folder.mkdir(parents=True)
                for image in ("0.png", "1.png"):
                    (folder / image).write_bytes(name.encode())  # never decoded here
    base = dataclasses.replace(DIGITS, data=DataConfig(name="image_folder", path=str(tmp_path / "one")))
    paths = [str(tmp_path / "one"), str(tmp_path / "two")]
    plan = make_plan(dataclasses.replace(GRID, base=base, grid={"data.path": paths}, seeds=(0,)), FILE)
    assert len({cell.config.data.fingerprint for cell in plan.fixed}) == 2
    moved = make_plan(dataclasses.replace(GRID, base=base), FILE, places=[f"data.path={tmp_path / 'two'}"])
    assert moved.base.data.fingerprint == plan.fixed[1].config.data.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"space": {"model.encoder": CategoricalDistribution(["resnet18", "resnet81"])}},
        {"space": {}, "trials": 0, "grid": {"model.encoder": ["resnet18", "resnet81"]}},
    ],
)
def test_every_encoder_is_checked_before_anything_starts(change: dict):
    with pytest.raises(ConfigError, match=r"^model\.encoder must be a timm model, got 'resnet81'"):
        make_plan(dataclasses.replace(SEARCH, **change), FILE)


def test_a_file_that_is_no_store_is_refused(store: Path):
    store.write_text("not a database")
    with pytest.raises(ConfigError, match="must be an sqlite file"):
        make_plan(GRID, FILE)
    store.unlink()
    store.mkdir()
    with pytest.raises(ConfigError, match="must be an sqlite file"):
        make_plan(GRID, FILE)


def test_one_sweep_name_belongs_to_one_file(tmp_path: Path):
    first, second = (tmp_path / folder / "study.py" for folder in ("a", "b"))
    for file in (first, second):
        file.parent.mkdir()
        file.touch()
    opened(make_plan(GRID, first)).close()
    with pytest.raises(ConfigError, match=r"^name 'study' must belong to one sweep file"):
        make_plan(GRID, second)
    first.unlink()  # moved, not copied
    assert make_plan(GRID, second).todo == 4


def test_cell_keys_do_not_depend_on_the_sweep():
    plan = make_plan(GRID, FILE)
    assert plan.fixed[0].key == cell_key(dataclasses.replace(DIGITS, seed=0))
