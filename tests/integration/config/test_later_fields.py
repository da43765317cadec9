"""Config fields added later: cells keep their keys, and results in the store still count.

Run: python -m pytest tests/integration/config/test_later_fields.py
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from optuna.distributions import CategoricalDistribution

from analysis.select.selection import current
from analysis.store.runs import load_runs
from analysis.tables import table
from jepa_train.base.validation import SCHEMA, later
from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_key, later_fields
from jepa_train.config.presets import DIGITS, LEJEPA_IMAGENET1K_VIT_L14, RECTIFIED_CIFAR100_RESNET18
from jepa_train.methods import METHODS, LeJEPA
from sweeps.engine.cli.status import status
from sweeps.engine.plan.describe import open_ledger
from sweeps.engine.plan.plan import Plan, make_plan
from sweeps.engine.spec.sweep import Sweep

FILE = Path("study.py")
# Never renewed: a field that changes one of these makes every store forget its results
KEYS = {
    "lejepa": "ff8b1b82ed3e1f62",
    "rectified_lpjepa": "1b8bc54c5aa295b7",
    "vicreg": "34651440add77d72",
    "simclr": "a818be4d41124569",
    "ncl": "3d70b6c6e33884f8",
}
# "Class.field" -> (schema, default): a line is added for each later field, and never changes
LATER: dict[str, tuple[int, Any]] = {
    "DataConfig.content": (2, ""),
    "DataConfig.test_frac": (2, 0.0),
    "DataConfig.split_seed": (2, 0),
}
OLD = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grown(LeJEPA):
    """LeJEPA with a field of the next schema."""

    skew: Literal["none", "left"] = later("none", schema=SCHEMA + 1)


NEW = dataclasses.replace(OLD, base=dataclasses.replace(DIGITS, method=Grown(lamb=0.02, num_slices=256)))


@pytest.fixture
def old(results: Path) -> Plan:  # noqa: ARG001 (the store)
    """The plan of a sweep that has run before the field was added."""
    return launched(OLD, all_cells=True)


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The next schema, from here on."""
    later_fields.cache_clear()
    monkeypatch.setitem(METHODS, "lejepa", Grown)
    yield
    later_fields.cache_clear()


def launched(sweep: Sweep, *, all_cells: bool = False) -> Plan:
    plan = make_plan(sweep, FILE)
    ledger = open_ledger(plan, note=print, publish=lambda: "")
    for row in plan.rows() if all_cells else ():
        if row.due:
            ledger.start(row.cell, devices=1.0)
            ledger.log(row.cell.key, {"epoch": 1.0, "val/probe_top1": 0.9, "test/linear_top1": 0.9})
            ledger.end(row.cell.key, "finished", "")
    assert ledger.close() == ""
    return plan


def compared() -> list[str]:
    return sorted(current(load_runs("study"))["cell_key"])


def keys_of(plan: Plan) -> list[str]:
    return sorted(cell.key for cell in plan.fixed)


def test_keys_are_those_of_the_first_schema() -> None:
    assert {name: cell_key(TrainConfig(method=METHODS[name]())) for name in KEYS} == KEYS
    assert cell_key(DIGITS) == "ebb22513d0e1050b"
    assert cell_key(LEJEPA_IMAGENET1K_VIT_L14) == "794ba291d7f68e0b"
    assert cell_key(RECTIFIED_CIFAR100_RESNET18) == "68051fc73233d6fb"


def test_the_default_of_a_later_field_never_changes() -> None:
    sections = [type(getattr(TrainConfig(), field.name)) for field in dataclasses.fields(TrainConfig)]
    kinds = {TrainConfig, *METHODS.values(), *filter(dataclasses.is_dataclass, sections)}
    fields = [(kind, field) for kind in kinds for field in dataclasses.fields(kind) if "schema" in field.metadata]
    assert {
        f"{kind.__name__}.{field.name}": (field.metadata["schema"], field.default) for kind, field in fields
    } == LATER
    assert all(1 < schema <= SCHEMA and type(default) in (str, int, float, bool) for schema, default in LATER.values())


@pytest.mark.usefixtures("grown")
def test_a_later_field_enters_the_key_only_where_it_differs_from_its_default() -> None:
    assert later_fields()["lejepa"] == {"method.skew": "none"}
    method = Grown(lamb=0.02, num_slices=256)
    keys = [cell_key(dataclasses.replace(DIGITS, method=dataclasses.replace(method, skew=s))) for s in ("none", "left")]
    assert keys[0] == cell_key(DIGITS) != keys[1]


def test_an_old_store_is_complete_and_gives_the_same_table(old: Plan, request: pytest.FixtureRequest) -> None:
    before = table("study", format="md")
    request.getfixturevalue("grown")
    assert launched(NEW).todo == 0
    assert status(NEW)["states"] == {"finished": 4}
    assert compared() == keys_of(old)
    assert table("study", format="md") == before


def test_old_runs_are_at_the_default_of_a_later_axis(old: Plan, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("grown")
    sweep = dataclasses.replace(NEW, grid={**OLD.grid, "method.skew": ["left", "none"]})
    plan = launched(sweep, all_cells=True)
    assert status(sweep)["states"] == {"finished": 8}
    column = load_runs("study").set_index("cell_key")["method.skew"].to_dict()
    assert column == dict.fromkeys(keys_of(plan), "left") | dict.fromkeys(keys_of(old), "none")
    assert compared() == keys_of(plan)


def test_a_search_over_a_later_field_knows_the_old_runs(old: Plan, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("grown")
    space = {"method.skew": CategoricalDistribution(["none", "left"])}
    searches = make_plan(dataclasses.replace(NEW, space=space, trials=2), FILE).searches
    first_seed = [cell.key for cell in old.fixed if cell.config.seed == 0]
    assert [[candidate.cell.key for candidate in study.candidates] for study in searches] == [[k] for k in first_seed]
