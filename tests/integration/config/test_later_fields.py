"""Config fields that are added later: cells keep their keys, and what was run before still counts."""

import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
ROOT = Path(__file__).parents[3]
# Never renewed: a field that changes one of these makes every store forget its results
KEYS = {
    "lejepa": "ff8b1b82ed3e1f62",
    "rectified_lpjepa": "1b8bc54c5aa295b7",
    "vicreg": "34651440add77d72",
    "simclr": "a818be4d41124569",
    "ncl": "3d70b6c6e33884f8",
}
# "Class.field" -> (schema, default): a further line for each later field; a line that is here never changes
LATER: dict[str, tuple[int, Any]] = {}
OLD = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))
# How a script begins that runs in a copy of the packages where the next schema has added `noise` and `method.skew`
HEAD = """
import dataclasses, json
from pathlib import Path
from analysis.store.runs import load_runs
from analysis.select.selection import current
from analysis.table.summary import progress_note
from analysis.tables import table
from jepa_train.config.flat import cell_key, flatten, unflatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.cli.status import status
from sweeps.engine.plan.describe import open_ledger

FILE = Path("study.py")
OLD = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))

def launched(sweep, *runs):
    plan = make_plan(sweep, FILE)
    ledger = open_ledger(plan, note=print, publish=lambda: "")
    for cell in runs:
        ledger.start(cell, devices=1.0)
        ledger.log(cell.key, {"epoch": 1.0, "val/probe_top1": 0.9, "test/linear_top1": 0.9})
        ledger.end(cell.key, "finished", "")
    assert ledger.close() == ""
    return plan

def facts(sweep):
    runs = load_runs("study")
    return {
        "states": status(sweep)["states"],
        "compared": sorted(current(runs)["cell_key"]),
        "table": table("study", format="md"),
        "summary": progress_note(runs),
    }

def changed(sweep, base={}, **fields):
    return dataclasses.replace(sweep, base=unflatten(base, base=DIGITS), **fields)
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, with two more fields."""
    folder = tmp_path_factory.mktemp("grown")
    for package in ("jepa_train", "sweeps", "search_spaces", "analysis"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "notebooks"))
    place = f"from {later.__module__} import SCHEMA, later\n\n\n@dataclass"
    for kind, before, added in (
        (
            TrainConfig,
            '    precision: Literal["fp32", "bf16"] = "fp32"\n',
            "    noise: float = later(0, schema=SCHEMA + 1)\n",
        ),
        (
            LeJEPA,
            '    domain: Domain = "symmetric"\n',
            '    skew: Literal["none", "left"] = later("none", schema=SCHEMA + 1)\n',
        ),
    ):
        file = folder / Path(inspect.getsourcefile(kind) or "").relative_to(ROOT)
        text = file.read_text()
        assert text.count(before) == 1
        file.write_text(text.replace(before, before + added).replace("\n\n@dataclass", f"\n{place}", 1))
    return folder


def run(grown: Path, script: str) -> Any:
    """The last line that a script prints in the copy, as JSON."""
    environment = os.environ | {"PYTHONPATH": str(grown)}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + script], cwd=grown, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def old(results: Path) -> Plan:  # noqa: ARG001 (whose store is filled)
    """The plan of a sweep that today's code has run."""
    plan = make_plan(OLD, FILE)
    ledger = open_ledger(plan, note=print, publish=lambda: "")
    for number, cell in enumerate(plan.fixed):
        ledger.start(cell, devices=1.0)
        ledger.log(cell.key, {"epoch": 1.0, "val/probe_top1": 0.5 + number / 10, "test/linear_top1": 0.4 + number / 7})
        ledger.end(cell.key, "finished", "")
    assert ledger.close() == ""
    return plan


def test_keys_are_those_of_the_first_schema():
    assert {name: cell_key(TrainConfig(method=METHODS[name]())) for name in KEYS} == KEYS
    assert cell_key(DIGITS) == "ebb22513d0e1050b"
    assert cell_key(LEJEPA_IMAGENET1K_VIT_L14) == "794ba291d7f68e0b"
    assert cell_key(RECTIFIED_CIFAR100_RESNET18) == "68051fc73233d6fb"


def test_the_default_of_a_later_field_never_changes():
    sections = [type(getattr(TrainConfig(), field.name)) for field in dataclasses.fields(TrainConfig)]
    kinds = {TrainConfig, *METHODS.values(), *filter(dataclasses.is_dataclass, sections)}
    found = {
        f"{kind.__name__}.{field.name}": (field.metadata["schema"], field.default)
        for kind in kinds
        for field in dataclasses.fields(kind)
        if "schema" in field.metadata
    }
    assert found == LATER
    assert all(1 < schema <= SCHEMA and type(default) in (str, int, float, bool) for schema, default in found.values())
    assert bool(later_fields()) == bool(LATER)


def test_a_later_field_enters_the_key_where_it_differs_from_its_default(grown: Path):
    script = """
def key(**flat):
    return cell_key(unflatten(flat, base=DIGITS))

others = [key(noise=0.5), key(**{"method.skew": "left"}), key(noise=0.5, **{"method.skew": "left"}), key(noise=1)]
print(json.dumps([key(), key(noise=0.0), key(method="rectified_lpjepa"), flatten(DIGITS)["noise"], others]))
"""
    same, explicit, other_method, complete, others = run(grown, script)
    assert same == explicit == cell_key(DIGITS)
    assert other_method == cell_key(dataclasses.replace(DIGITS, method=METHODS["rectified_lpjepa"]()))
    assert complete == 0.0
    assert len({same, *others}) == 5


def keys_of(plan: Plan) -> list[str]:
    return sorted(cell.key for cell in plan.fixed)


def test_an_old_store_is_complete_and_gives_the_same_table(grown: Path, old: Plan):
    before = table("study", format="md")
    unlaunched, todo, relaunched = run(
        grown, "print(json.dumps([facts(OLD), launched(OLD).todo, facts(OLD)], allow_nan=False))"
    )
    assert unlaunched["states"] == status(OLD)["states"] == {"finished": 4}
    assert unlaunched["compared"] == keys_of(old)
    assert unlaunched["table"] == before == table("study", format="md")
    assert (todo, relaunched) == (0, unlaunched)


@pytest.mark.parametrize(("field", "default", "other"), [("noise", 0, 0.5), ("method.skew", "none", "left")])
def test_old_runs_are_at_the_default_of_a_later_axis(grown: Path, old: Plan, field: str, default: Any, other: Any):
    script = f"""
sweep = changed(OLD, grid={{**OLD.grid, {field!r}: [{other!r}, {default!r}]}})
plan = launched(sweep)
due = [row.cell for row in plan.rows() if row.due]
begun = facts(sweep)
launched(sweep, *due)
columns = load_runs("study").set_index("cell_key")[{field!r}].to_dict()
print(json.dumps([begun, [cell.key for cell in due], facts(sweep), columns]))
"""
    begun, due, done, column = run(grown, script)
    assert begun["states"] == {"finished": 4, "missing": 4}
    assert begun["compared"] == keys_of(old)
    assert done["states"] == {"finished": 8}
    assert done["compared"] == sorted([*keys_of(old), *due])
    assert column == dict.fromkeys(keys_of(old), default) | dict.fromkeys(due, other)


def test_a_run_and_a_base_differ_where_only_one_has_the_later_field(grown: Path, old: Plan):
    script = """
noisy = changed(OLD, {"noise": 0.5})
plan = launched(noisy)
cells = sorted(cell.key for cell in plan.fixed)
launched(noisy, *plan.fixed)
print(json.dumps([plan.todo, cells, facts(noisy)]))
"""
    todo, noisy, told = run(grown, script)
    assert (todo, told["states"], told["compared"]) == (4, {"finished": 4}, noisy)
    assert "4 of another configuration left out (they differ in noise)" in told["summary"]
    relaunched = open_ledger(old, note=print, publish=lambda: "")  # by today's code, which does not know the field
    assert relaunched.close() == ""
    assert sorted(current(load_runs("study"))["cell_key"]) == keys_of(old)
    told = run(grown, "print(json.dumps(facts(OLD)))")
    assert (told["states"], told["compared"]) == ({"finished": 4}, keys_of(old))


def test_a_search_over_a_later_field_knows_the_old_runs(grown: Path, old: Plan):
    script = """
from optuna.distributions import FloatDistribution

found = make_plan(changed(OLD, space={"noise": FloatDistribution(0.0, 1.0)}, trials=3), FILE).searches
print(json.dumps([[candidate.cell.key for candidate in study.candidates] for study in found]))
"""
    first_seed = [cell.key for cell in old.fixed if cell.config.seed == 0]
    assert run(grown, script) == [[key] for key in first_seed]
