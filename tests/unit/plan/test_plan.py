"""Plans on hand-made stores: finished cells stay finished, begun ones are resumed, and search spaces.

Run: python -m pytest tests/unit/plan/test_plan.py
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from folders_of_images import write_folder
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from simulated_sweep import entry_of, plan_of

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.plan import Plan, make_plan, resolved_base
from sweeps.engine.spec.cells import Cell, fixed_cells, make_cell
from sweeps.engine.spec.search_space import Domain, point_of
from sweeps.engine.spec.sweep import Sweep

FILE = Path("study.py")
GRID = Sweep(name="study", purpose="", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))
SPACE = {"method.lamb": FloatDistribution(0.01, 0.1)}
SEARCH = Sweep(name="study", purpose="", base=DIGITS, space=SPACE, trials=5)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder without a store."""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "results"


def planned(sweep: Sweep, cells: Sequence[Cell] = (), statuses: Sequence[str] = (), **rules: object) -> Plan:
    """The plan on a store with these cells, by default finished."""
    ends = statuses or ["finished"] * len(cells)
    return plan_of(sweep, [entry_of(*end, epoch=1) for end in zip(cells, ends, strict=True)], **rules)


def at(*lambs: float) -> list[Cell]:
    return [make_cell(SEARCH, DIGITS, {"method.lamb": lamb}) for lamb in lambs]


def test_planning_writes_nothing(results: Path) -> None:
    plan = make_plan(GRID, FILE)
    assert (plan.total, plan.todo, results.exists()) == (4, 4, False)


@pytest.mark.parametrize(
    ("status", "rules", "row"),
    [
        ("finished", {}, ("finished", "", False)),
        ("diverged", {}, ("diverged", "", False)),
        ("collapsed", {}, ("collapsed", "", False)),
        ("failed", {}, ("failed", "", False)),
        ("failed", {"retry": frozenset({"failed"})}, ("failed", "runs again", True)),
        ("interrupted", {}, ("interrupted", "epoch 1 of 50", True)),
        ("running", {}, ("interrupted", "epoch 1 of 50", True)),
        ("running", {"held": True}, ("running", "epoch 1 of 50", False)),
        ("pruned", {}, ("pruned", "runs on", True)),  # the sweep has no early stopping any more
        ("pruned", {"stopping": True}, ("pruned", "", False)),
    ],
)
def test_the_store_and_the_rules_decide_which_cells_run(status: str, rules: dict, row: tuple) -> None:
    plan = planned(GRID, fixed_cells(GRID, DIGITS)[:1], [status], **rules)
    first = plan.rows()[0]
    assert (first.state, first.note, first.due) == row
    assert (plan.todo, plan.total) == (3 + first.due, 4)


def test_a_longer_grid_runs_the_difference() -> None:
    longer = dataclasses.replace(GRID, grid={"method.lamb": [0.02, 0.05, 0.1]}, seeds=(0, 1, 2))
    plan = planned(longer, fixed_cells(GRID, DIGITS))
    labels = ["lamb=0.02 seed=2", "lamb=0.05 seed=2", *(f"lamb=0.1 seed={seed}" for seed in (0, 1, 2))]
    assert [cell.label for cell in plan.missing] == labels


def test_points_outside_an_edited_space_do_not_count_and_a_finite_space_bounds_the_trials() -> None:
    narrower = dataclasses.replace(SEARCH, space={"method.lamb": FloatDistribution(0.01, 0.05)})
    finite = dataclasses.replace(SEARCH, space={"method.num_slices": CategoricalDistribution([64, 128, 256])})
    assert [planned(sweep, at(0.09)).unknown for sweep in (SEARCH, narrower, finite)] == [4, 5, 3]


def test_points_are_read_back_in_their_types() -> None:
    space = {
        "method.mu": Domain(CategoricalDistribution([1, 2.5])),
        "method.rectified": Domain(CategoricalDistribution([True]), when={"method": "rectified_lpjepa"}),
        "epochs": Domain(IntDistribution(1, 9)),
    }
    params = {"method": "rectified_lpjepa", "method.mu": "1.0", "method.rectified": "True", "epochs": "9"}
    assert point_of(space, params, DIGITS) == {"method.mu": 1, "method.rectified": True, "epochs": 9}
    for other in ({"method.mu": "3.0"}, {"method.rectified": "False"}, {"epochs": "10"}):
        assert point_of(space, params | other, DIGITS) is None
    steps = {"method.lamb": Domain(FloatDistribution(0.1, 0.7, step=0.2))}
    read = [point_of(steps, {"method": "lejepa", "method.lamb": text}, DIGITS) for text in ("0.5", "0.6")]
    assert read == [{"method.lamb": 0.5}, None]
    assert point_of({key: Domain(values) for key, values in SPACE.items()}, {"method": "simclr"}, DIGITS) is None


def test_other_images_than_the_bases_are_identified_anew(tmp_path: Path) -> None:
    one, two = (str(write_folder(tmp_path / name)) for name in ("one", "two"))
    Path(two, "train/ant/0.png").write_bytes(b"another")  # never decoded here
    base = dataclasses.replace(DIGITS, data=DataConfig(name="image_folder", path=one))
    sweep = dataclasses.replace(GRID, base=base, grid={"data.path": [one, two]}, seeds=(0,))
    first, second = (cell.config.data.fingerprint for cell in fixed_cells(sweep, resolved_base(sweep, [])))
    assert first != second
    assert resolved_base(sweep, [f"data.path={two}"]).data.fingerprint == second


def test_every_encoder_is_checked_before_anything_starts() -> None:
    sweep = dataclasses.replace(SEARCH, space={"model.encoder": CategoricalDistribution(["resnet18", "resnet81"])})
    with pytest.raises(
        ConfigError, match=r"^model\.encoder must be a timm model, got 'resnet81'; did you mean 'resnet18'"
    ):
        make_plan(sweep, FILE)
