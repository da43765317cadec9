"""Cell keys and tables, against the golden files. See tests/golden_files.py for what these are and how to renew them.

Run: python -m pytest tests/unit/test_golden.py
"""

import dataclasses
import hashlib
import importlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from golden_files import DEMO, hold, known, write_old_store

from analysis.__main__ import main as analysis
from analysis.runs import load_runs, sweeps_in
from analysis.tables import table_names
from jepa_train.config import TrainConfig
from jepa_train.flat import cell_key, unflatten
from jepa_train.presets import PRESETS
from jepa_train.scales import SCALES
from sweeps.__main__ import main as sweeps
from sweeps.engine import Sweep

ROOT = Path(__file__).parents[2]
EXPORTS = str(ROOT / "docs/results/store")
STUDIES = sorted(file.stem for file in (ROOT / "sweeps").glob("*.py") if " import Sweep" in file.read_text())
SCALED = [name for name in STUDIES if hasattr(importlib.import_module(f"sweeps.{name}"), "sweep")]


def studies(*scales: str) -> Iterable[Sweep]:
    """Every study: those with scales at the given ones, the others once."""
    for name in STUDIES:
        module = importlib.import_module(f"sweeps.{name}")
        yield from map(module.sweep, scales) if name in SCALED else [module.SWEEP]


def cell_keys(sweep: Sweep, fingerprint: str = "") -> list[str]:
    """Keys of references and grid cells; of a search, those of the corners of its space. No data is read.

    Args:
        fingerprint: of the base's data. A base that is the best cell of a sweep counts as that sweep's base.
    """
    base = sweep.base
    if not isinstance(base, TrainConfig):
        base = importlib.import_module(f"sweeps.{base.sweep}").SWEEP.base
    base = dataclasses.replace(base, data=dataclasses.replace(base.data, fingerprint=fingerprint))
    seeds = sweep.seeds[:1] if sweep.space else sweep.seeds
    grids = sweep.grids or [{}]
    combined = [dict(zip(grid, values, strict=True)) for grid in grids for values in itertools.product(*grid.values())]
    points = [{"seed": seed, **point} for point in (sweep.corners() if sweep.space else combined) for seed in seeds]
    points += [{"seed": sweep.seeds[0], **point} for point in sweep.references]
    return [cell_key(unflatten(point, base=base)) for point in points]


def counted(keys: Iterable[str]) -> str:
    """Number of keys, and a digest that does not depend on their order."""
    ordered = sorted(keys)
    return f"{len(ordered)} cells, {hashlib.blake2b(' '.join(ordered).encode(), digest_size=8).hexdigest()}"


def test_cell_keys_of_every_study_at_every_scale_and_of_every_preset() -> None:
    presets = {f"preset {name}": cell_key(PRESETS[name]) for name in PRESETS}
    hold("cell_keys.json", presets | {sweep.name: counted(cell_keys(sweep)) for sweep in studies(*SCALES)})


@pytest.mark.usefixtures("results", "priced")
def test_a_dry_run_plans_the_same_cells(capsys: pytest.CaptureFixture[str]) -> None:
    """Studies whose data is available, without searches, whose cells are proposed."""
    assert sweeps([*SCALED, "--scale", "mini", "--dry-run", "--json"]) == 0
    assert sweeps(["demo_rectified_lpjepa", "--dry-run", "--json"]) == 0
    out = capsys.readouterr().out.replace("\n}\n{\n", "\n}\n\0{\n").split("\0")
    facts = [sweep for text in out for sweep in json.loads(text)["sweeps"]]
    golden = known("cell_keys.json")
    planned = {sweep["sweep"]: counted(cell["key"] for cell in sweep["cells"]) for sweep in facts}
    assert planned == {name: golden[name] for name in planned}
    assert len(planned) == len(SCALED) + 1


def digests(store: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Command -> md5 of the printed table, of the tables that the store can fill."""
    found = {}
    for more in itertools.product(([], ["--against-paper"]), ("md", "csv")):
        command = [*words, *more[0], "--format", more[1]]
        if analysis([*command, "--store", store]) == 0:
            found[" ".join(command)] = hashlib.md5(capsys.readouterr().out.encode()).hexdigest()
    capsys.readouterr()
    return found


def test_tables(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, str] = {}
    for name, scale in itertools.product(table_names(), SCALES):
        found |= digests(EXPORTS, [name, "--scale", scale], capsys)
    old_store = write_old_store(results)
    for name in DEMO:
        found |= digests(old_store, [name], capsys)
    hold("tables.json", found)


@pytest.mark.parametrize("name", sorted(sweeps_in(EXPORTS)))
def test_the_recorded_results_count_as_done(name: str) -> None:
    runs = load_runs(name, EXPORTS)
    (study,) = (sweep for sweep in studies(*SCALES) if sweep.name == name)
    (fingerprint,) = runs["data.fingerprint"].unique()
    ended = {*runs.loc[runs["status"].isin(["finished", "diverged", "collapsed"]), "cell_key"]}
    asked = {*cell_keys(study, fingerprint)}
    assert asked & ended == asked
