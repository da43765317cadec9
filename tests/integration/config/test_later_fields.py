"""Config fields added later: cells keep their keys, and results in the store still count.

Run: python -m pytest tests/integration/config/test_later_fields.py
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
from launches import record
from optuna.distributions import CategoricalDistribution

from analysis.runs import load_runs
from analysis.select.selection import current
from analysis.tables import table
from jepa_train.base.validation import SCHEMA, later
from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_key, later_fields
from jepa_train.config.presets import DIGITS
from jepa_train.methods import METHODS, LeJEPA
from sweeps.engine.cli.status import status
from sweeps.engine.plan.plan import Plan, make_plan
from sweeps.engine.spec.sweep import Sweep

FILE = Path("study.py")
# "Class.field" -> (schema, default): a line is added for each later field, and never changes
LATER: dict[str, tuple[int, Any]] = {
    "DataConfig.content": (2, ""),
    "DataConfig.test_frac": (2, 0.0),
    "DataConfig.split_seed": (2, 0),
    "DataConfig.fit": (3, "square"),
    "DataConfig.local_image_size": (3, 0),
    "DataConfig.eval_fov": (3, 1.0),
    "DataConfig.channels": (4, 3),
    "DataConfig.bits": (4, 8),
    "ModelConfig.projector_norm": (3, "batch"),
    "OptimConfig.decay_all": (3, False),
    "ModelConfig.swa_start": (3, 0),
    "OptimConfig.swa_lr": (3, 0.0),
    "OptimConfig.swa_anneal_epochs": (3, 10),
    "ProbeConfig.features": (3, "blocks"),
    "ProbeConfig.norm": (3, "layer"),
    "ProbeConfig.optimizer": (3, "adamw"),
    "ProbeConfig.schedule": (3, "encoder"),
    "ModelConfig.batch_norm": (3, "all_views"),
    "ModelConfig.zero_init_last": (3, True),
    "ModelConfig.encoder_hash": (3, ""),
    "ModelConfig.weights_id": (4, ""),
    "RectifiedLpJEPA.nonzero_target": (4, 0.0),
}
OLD = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grown(LeJEPA):
    """LeJEPA with a field of the next schema."""

    skew: Literal["none", "left"] = later("none", schema=SCHEMA + 1)


@pytest.fixture
def old(results: Path) -> Plan:  # noqa: ARG001 (the store)
    """The plan of a sweep that has run before the field was added."""
    return launched(OLD, all_cells=True)


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """The next schema, from here on, and the sweep in it."""
    monkeypatch.setitem(METHODS, "lejepa", Grown)
    return dataclasses.replace(OLD, base=dataclasses.replace(DIGITS, method=Grown(lamb=0.02, num_slices=256)))


def launched(sweep: Sweep, *, all_cells: bool = False) -> Plan:
    plan = make_plan(sweep, FILE)
    cells = [row.cell for row in plan.rows() if all_cells and row.due]
    return record(plan, cells, lambda _: {"epoch": 1.0, "val/probe_top1": 0.9, "test/linear_top1": 0.9})


def compared() -> list[str]:
    return sorted(current(load_runs("study"))["cell_key"])


def keys_of(plan: Plan) -> list[str]:
    return sorted(cell.key for cell in plan.fixed)


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
    new = request.getfixturevalue("grown")
    assert launched(new).todo == 0
    assert status(new)["states"] == {"finished": 4}
    assert compared() == keys_of(old)
    assert table("study", format="md") == before


def test_a_search_over_a_later_field_knows_the_old_runs(old: Plan, request: pytest.FixtureRequest) -> None:
    new = request.getfixturevalue("grown")
    space = {"method.skew": CategoricalDistribution(["none", "left"])}
    searches = make_plan(dataclasses.replace(new, space=space, trials=2), FILE).searches
    first_seed = [cell.key for cell in old.fixed if cell.config.seed == 0]
    assert [[cell.key for candidate in study.candidates for cell in candidate.cells] for study in searches] == [
        [k] for k in first_seed
    ]
