"""Golden files: cell keys, names in the store, tables and a store, as they were at commit 98f937b, before the modules
were moved.

Each JSON file has what was recorded then ("recorded") and what has come since ("added"); later code must give the two
together. To renew the files, in one commit whose message lists the differences:

    JEPA_GOLDEN=renew python -m pytest tests/unit/test_golden.py

What was recorded and is gone or different leaves "recorded"; what is new enters "added". store_98f937b.db.gz is never
renewed: it is what `make demo` wrote at that commit, without artifacts and the machine's metrics, most curves cut to
their last epoch, paths and names of user and machine replaced.
"""

import dataclasses
import gzip
import hashlib
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from analysis.__main__ import main as analysis
from analysis.runs import load_runs, sweeps_in
from analysis.tables import table_names
from jepa_train.config import TrainConfig
from jepa_train.flat import cell_key, unflatten
from jepa_train.methods import METHODS
from jepa_train.presets import PRESETS
from jepa_train.scales import SCALES
from sweeps.__main__ import main as sweeps
from sweeps.engine import Sweep

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
EXPORTS = str(ROOT / "docs/results/store")
STUDIES = sorted(file.stem for file in (ROOT / "sweeps").glob("*.py") if " import Sweep" in file.read_text())
SCALED = [name for name in STUDIES if hasattr(importlib.import_module(f"sweeps.{name}"), "sweep")]
DEMO = ("demo_lejepa", "demo_rectified_lpjepa", "demo_two_workers")
UNSURE = "lost_device_seconds"  # a tag of cells with a worker that was lost
FILE = '''"""Every method, a reference, a candidate that fails, early stopping, and the seeds of the winners."""
import dataclasses, sys
from optuna.distributions import FloatDistribution
from jepa_train.methods import METHODS
from jepa_train.presets import DIGITS
from sweeps.engine import Asha, Sweep, main
data = dataclasses.replace(DIGITS.data, name="digits_0_4")
probe = dataclasses.replace(DIGITS.probe, protocols="linear,knn", transfer="digits_5_9")
BASE = dataclasses.replace(DIGITS, data=data, probe=probe, epochs=2, global_batch=256)
def sweep(scale):
    return Sweep(name=f"golden_{scale}", scale=scale, purpose=__doc__, base=BASE, trials=1, seeds=(0, 1),
        grid=[{"method": [*METHODS]}, {"method": ["lejepa"], "global_batch": [2048]}],
        space={"optim.lr": FloatDistribution(1e-4, 1e-3)}, references=({"epochs": 0},), early_stopping=Asha(first=1))
if __name__ == "__main__":
    sys.exit(main(sweep, __file__, ["--scale", "mini"]) != 1)  # 1: the candidate that fails
'''


def hold(file: str, now: Mapping[str, str]) -> None:
    """Compare with a golden file, or renew it."""
    place = GOLDEN / file
    golden = json.loads(place.read_text()) if place.is_file() else {"recorded": dict(now), "added": {}}
    if os.environ.get("JEPA_GOLDEN") == "renew":
        recorded = {name: text for name, text in golden["recorded"].items() if now.get(name) == text}
        golden = {"recorded": recorded, "added": {name: now[name] for name in now if name not in recorded}}
        place.write_text(json.dumps(golden, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    known = golden["recorded"] | golden["added"]
    differ = sorted(name for name in known.keys() | now.keys() if known.get(name) != now.get(name))
    assert {name: f"golden {known.get(name)}, now {now.get(name)}" for name in differ} == {}


def studies(*scales: str) -> Iterable[Sweep]:
    """Those with scales at the given ones, and those without once."""
    for name in STUDIES:
        module = importlib.import_module(f"sweeps.{name}")
        yield from map(module.sweep, scales) if name in SCALED else [module.SWEEP]


def cell_keys(sweep: Sweep, fingerprint: str = "") -> list[str]:
    """Of references and grid cells, of a search those of its corners; no data is looked at.

    Args:
        fingerprint: of the base's data. The best cell of a sweep is taken to be that sweep's own base.
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
    """How many there are, and a digest of them in any order."""
    ordered = sorted(keys)
    return f"{len(ordered)} cells, {hashlib.blake2b(' '.join(ordered).encode(), digest_size=8).hexdigest()}"


def test_cell_keys_of_every_study_at_every_scale_and_of_every_preset() -> None:
    presets = {f"preset {name}": cell_key(PRESETS[name]) for name in PRESETS}
    hold("cell_keys.json", presets | {sweep.name: counted(cell_keys(sweep)) for sweep in studies(*SCALES)})


@pytest.mark.usefixtures("results", "priced")
def test_a_dry_run_plans_the_same_cells(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the data is at hand; the searches aside, whose cells are proposed."""
    assert sweeps([*SCALED, "--scale", "mini", "--dry-run", "--json"]) == 0
    assert sweeps(["demo_rectified_lpjepa", "--dry-run", "--json"]) == 0
    out = capsys.readouterr().out.replace("\n}\n{\n", "\n}\n\0{\n").split("\0")
    facts = [sweep for text in out for sweep in json.loads(text)["sweeps"]]
    golden = json.loads((GOLDEN / "cell_keys.json").read_text())
    known = golden["recorded"] | golden["added"]
    planned = {sweep["sweep"]: counted(cell["key"] for cell in sweep["cells"]) for sweep in facts}
    assert planned == {name: known[name] for name in planned}
    assert len(planned) == len(SCALED) + 1


def form(text: str) -> str:
    """The format of a value in the store."""
    if re.fullmatch(r"[\[{].*[\]}]", text, flags=re.DOTALL):
        value = json.loads(text)
        fields = sorted({key for item in value if isinstance(item, dict) for key in item})
        return f"JSON {type(value).__name__}" + (f" of {', '.join(fields)}" if fields else "")
    for pattern, name in (
        (r"-?\d+", "integer"),
        (r"-?\d+(\.\d+)?(e[-+]\d+)?", "number"),
        ("True|False", "True, False"),
        ("true|false", "true, false"),
    ):
        if re.fullmatch(pattern, text):
            return name
    return "text"


def stored_names(client: MlflowClient, sweep: str) -> dict[str, str]:
    """What a sweep wrote, with the formats of its values, or the values where there are few, and who has it."""
    found: dict[str, set[str]] = defaultdict(set)
    experiment = client.get_experiment_by_name(sweep)
    for tag, text in experiment.tags.items():
        found[f"experiment tag {tag}"].add(text if tag in ("sweep.kind", "sweep.scale") else form(text))
    methods: dict[str, set[str]] = defaultdict(set)
    for run in client.search_runs([experiment.experiment_id]):
        kind = "plan" if run.data.tags["role"] == "plan" else "cell"
        for tag, text in run.data.tags.items():
            literal = tag in ("role", "status", "mlflow.source.type")
            free = re.search(r"key|version|commit|host|user", tag)  # which may look like a number
            found[f"{kind} tag {tag}"].add(text if literal else "text" if free else form(text))
        for file in client.list_artifacts(run.info.run_id):
            found[f"{kind} artifact {file.path}"].add("file")
        for dataset in run.inputs.dataset_inputs:
            found[f"{kind} data set"] |= {f"{tag.key}={tag.value}" for tag in dataset.tags}
        for name, text in run.data.params.items():
            found[f"{kind} parameter {name}"].add(form(text))
            methods[f"{kind} parameter {name}"].add(run.data.params["method"])
        for name in run.data.metrics:
            found[f"{kind} metric {name}"].add("number")
            methods[f"{kind} metric {name}"].add(run.data.params["method"])
    told = {name: ", ".join(sorted(forms)) for name, forms in found.items() if UNSURE not in name}
    some = {name: f" ({', '.join(sorted(of))})" for name, of in methods.items() if of != {*METHODS}}
    return {name: text + some.get(name, "") for name, text in told.items()}


@pytest.mark.integration
def test_names_and_formats_that_a_sweep_writes_to_the_store(tmp_path: Path) -> None:
    """On CPUs: a GPU has metrics of its own. Left out: the tags sweep.holder, which is there only while a launch runs,
    and evaluated_by, which --evaluate adds; the metrics of the slow protocols."""
    file = tmp_path / "golden.py"
    file.write_text(FILE)
    environment = {**os.environ, "JEPA_RESULTS": str(tmp_path / "results"), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, file], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'results/mlflow.db'}")
    hold("stored_names.json", stored_names(client, "golden_mini"))


@pytest.fixture
def old_store(results: Path) -> str:
    """The URI of a copy of the old store, in a results folder of this test's own."""
    (results / "mlflow.db").write_bytes(gzip.decompress((GOLDEN / "store_98f937b.db.gz").read_bytes()))
    return f"sqlite:///{results / 'mlflow.db'}"


def digests(store: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """command -> md5 of the table that it prints, of those that the store can fill."""
    told = {}
    for more in itertools.product(([], ["--against-paper"]), ("md", "csv")):
        command = [*words, *more[0], "--format", more[1]]
        if analysis([*command, "--store", store]) == 0:
            told[" ".join(command)] = hashlib.md5(capsys.readouterr().out.encode()).hexdigest()
    capsys.readouterr()
    return told


def test_tables(old_store: str, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, str] = {}
    for name, scale in itertools.product(table_names(), SCALES):
        found |= digests(EXPORTS, [name, "--scale", scale], capsys)
    for name in DEMO:
        found |= digests(old_store, [name], capsys)
    hold("tables.json", found)


@pytest.mark.integration
@pytest.mark.usefixtures("old_store")
def test_a_store_of_before_counts_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    def asked(*words: str) -> dict[str, Any]:
        assert sweeps([*words, "--json"]) == 0
        return {sweep["sweep"]: sweep for sweep in json.loads(capsys.readouterr().out)["sweeps"]}

    done = {"demo_lejepa": 9, "demo_rectified_lpjepa": 9, "demo_two_workers": 1}
    assert {name: facts["states"] for name, facts in asked(*DEMO, "--status").items()} == {
        name: {"finished": count} for name, count in done.items()
    }
    for name, count in done.items():  # one by one: the base of the last is the first's best cell
        facts = asked(name, "--dry-run")[name]
        assert (facts["total"], facts["done"], facts["to_run"]) == (count, count, 0)
    command = [sys.executable, "-m", "sweeps", *DEMO, "--json"]
    launch = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert launch.returncode == 0, launch.stderr
    facts = json.loads(launch.stdout)["sweeps"]
    assert {sweep["sweep"]: (sweep["total"], sweep["ran"]) for sweep in facts} == {
        name: (count, 0) for name, count in done.items()
    }


@pytest.mark.parametrize("name", sorted(sweeps_in(EXPORTS)))
def test_the_recorded_results_count_as_done(name: str) -> None:
    runs = load_runs(name, EXPORTS)
    (study,) = (sweep for sweep in studies(*SCALES) if sweep.name == name)
    (fingerprint,) = runs["data.fingerprint"].unique()
    ended = runs.loc[runs["status"].isin(["finished", "diverged", "collapsed"]), "cell_key"]
    assert {*cell_keys(study, fingerprint)} <= {*ended}
