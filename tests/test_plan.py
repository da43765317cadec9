"""The ledger and the plan made of it: what is done stays done, what was begun is resumed, what has left stays out."""

import dataclasses
from pathlib import Path

import pytest
from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from jepa_train.checks import ConfigError
from jepa_train.config import DataConfig
from jepa_train.flat import cell_key
from jepa_train.presets import DIGITS
from sweeps.engine.plan import Plan, make_plan
from sweeps.engine.search import completer
from sweeps.engine.space import point_of, size
from sweeps.engine.spec import BestOf, Sweep
from sweeps.engine.store import store_uri
from sweeps.engine.tracking import Ledger

FILE = Path("study.py")
GRID = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))
SEARCH = Sweep(
    name="study", purpose="A study.", base=DIGITS, space={"method.lamb": FloatDistribution(0.01, 0.1)}, trials=5
)
METRICS = {"epoch": 1.0, "val/probe_top1": 0.5}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty store: MLflow takes seconds to make one."""
    with pytest.MonkeyPatch.context() as patch:
        results = tmp_path_factory.mktemp("template")
        patch.setenv("JEPA_RESULTS", str(results))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        MlflowClient(store_uri()).search_experiments()
        return (results / "mlflow.db").read_bytes()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, template: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of this test's own."""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "results").mkdir()
    file = tmp_path / "results" / "mlflow.db"
    file.write_bytes(template)
    return file


def record(plan: Plan, cell, status: str, *, value: float = 0.5) -> None:
    """A cell that has been run; "running" was left so by a driver that was killed."""
    ledger = Ledger(plan, FILE)
    ledger.start(cell, devices=1.0)
    ledger.log(cell.key, METRICS | {"val/probe_top1": value})
    if status != "running":
        ledger.end(cell.key, status, "")


def test_planning_writes_nothing(store: Path):
    store.unlink()
    plan = make_plan(GRID, FILE)
    assert (plan.total, plan.todo) == (4, 4)
    assert list(store.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "again"),
    [("finished", 0), ("diverged", 0), ("collapsed", 0), ("failed", 1), ("interrupted", 1), ("running", 1)],
)
def test_what_has_a_result_is_done_and_the_rest_runs_again(status: str, again: int):
    plan = make_plan(GRID, FILE)
    record(plan, plan.fixed[0], status)
    assert make_plan(GRID, FILE).todo == 3 + again


def test_a_cell_that_runs_again_goes_on_in_its_run():
    plan = make_plan(GRID, FILE)
    record(plan, plan.fixed[0], "interrupted")
    record(plan, plan.fixed[0], "finished")
    client = MlflowClient(store_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id])
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


def test_a_search_resumes_what_was_begun_before_it_proposes_more():
    plan = make_plan(SEARCH, FILE)
    assert (plan.total, plan.proposals) == (5, 5)
    for lamb, status in ((0.02, "finished"), (0.03, "diverged"), (0.04, "interrupted"), (0.05, "failed")):
        record(plan, completer(SEARCH, plan.base)({"method.lamb": lamb}), status)
    plan = make_plan(SEARCH, FILE)
    assert sorted(cell.config.method.lamb for cell in plan.missing) == [0.04, 0.05]
    assert {cell.key for cell in plan.missing} <= set(plan.entries)  # the same cells, so the same runs
    assert (len(plan.history), plan.proposals, plan.todo, plan.total) == (2, 1, 3, 5)


def test_points_outside_an_edited_space_do_not_count():
    plan = make_plan(SEARCH, FILE)
    record(plan, completer(SEARCH, plan.base)({"method.lamb": 0.09}), "finished")
    narrower = dataclasses.replace(SEARCH, space={"method.lamb": FloatDistribution(0.01, 0.05)})
    assert make_plan(narrower, FILE).proposals == 5
    assert make_plan(SEARCH, FILE).proposals == 4


def test_a_finite_space_has_no_more_trials_than_points():
    finite = dataclasses.replace(SEARCH, space={"method.num_slices": CategoricalDistribution([64, 128, 256])})
    assert make_plan(finite, FILE).proposals == 3


@pytest.mark.parametrize(
    ("domain", "points"),
    [
        (CategoricalDistribution([1, 2, 3]), 3),
        (IntDistribution(2, 10, step=4), 3),
        (FloatDistribution(0.0, 0.3, step=0.1), 4),
        (FloatDistribution(0.0, 0.3), float("inf")),
    ],
)
def test_size_of_a_space(domain, points: float):
    assert size({"a": domain, "b": CategoricalDistribution(["x", "y"])}) == 2 * points


def test_points_are_read_back_in_their_types():
    space = {"a": CategoricalDistribution([1, 2.5, True]), "b": IntDistribution(1, 9), "c": FloatDistribution(0.0, 1.0)}
    assert point_of(space, {"a": "2.5", "b": "3", "c": "1"}) == {"a": 2.5, "b": 3, "c": 1.0}
    assert point_of(space, {"a": "3", "b": "3", "c": "1"}) is None
    assert point_of(space, {"a": "1", "b": "10", "c": "1"}) is None


def test_the_best_cell_of_a_sweep_is_of_its_present_base_and_no_reference():
    search = dataclasses.replace(SEARCH, references=({"method.lamb": 0.0},))
    left = dataclasses.replace(search, base=dataclasses.replace(DIGITS, epochs=3))
    before = make_plan(left, FILE)
    record(before, completer(left, before.base)({"method.lamb": 0.02}), "finished", value=0.99)
    plan = make_plan(search, FILE)
    record(plan, plan.fixed[0], "finished", value=0.98)
    record(plan, completer(search, plan.base)({"method.lamb": 0.03}), "finished", value=0.6)
    record(plan, completer(search, plan.base)({"method.lamb": 0.04}), "finished", value=0.7)
    record(plan, completer(search, plan.base)({"method.lamb": 0.05}), "collapsed", value=0.8)
    best = make_plan(Sweep(name="other", purpose="", base=BestOf("study"), workers=2), Path("other.py"))
    assert best.base.method.lamb == 0.04
    assert best.base.epochs == DIGITS.epochs


def test_the_best_cell_of_a_sweep_that_is_not_there():
    with pytest.raises(ConfigError, match=r"^base is the best cell of sweep 'study', which has no finished cell"):
        make_plan(Sweep(name="other", purpose="", base=BestOf("study")), Path("other.py"))


def test_a_reference_that_becomes_a_cell_of_the_grid_changes_its_role():
    sweep = dataclasses.replace(GRID, seeds=(0,), references=({"method.lamb": 0.1},))
    plan = make_plan(sweep, FILE)
    record(plan, plan.fixed[0], "finished")
    grown = dataclasses.replace(sweep, grid={"method.lamb": [0.02, 0.05, 0.1]}, references=())
    plan = make_plan(grown, FILE)
    assert plan.todo == 2
    Ledger(plan, FILE)
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
    Ledger(make_plan(GRID, first), first)
    with pytest.raises(ConfigError, match=r"^name 'study' must belong to one sweep file"):
        make_plan(GRID, second)
    first.unlink()  # moved, not copied
    assert make_plan(GRID, second).todo == 4


def test_cell_keys_do_not_depend_on_the_sweep():
    plan = make_plan(GRID, FILE)
    assert plan.fixed[0].key == cell_key(dataclasses.replace(DIGITS, seed=0))
