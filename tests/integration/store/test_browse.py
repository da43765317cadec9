"""The store in the MLflow UI: links, groups of seeds, artifacts of the sweep's own run, resources of a cell.

Run: python -m pytest tests/integration/store/test_browse.py
"""

import dataclasses
import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.ui import links
from jepa_train.config.presets import DIGITS
from sweeps.engine.cluster.resources import Request
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run.estimate import finished_estimates, kind_of_config
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.spec.cells import fixed_cells
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import store_uri

FILE = Path("study.py")
SEEDS = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))
REQUEST = Request(workers=1, cpus=2, gpus=0, device="X")

pytestmark = pytest.mark.usefixtures("results")


def ledger(sweep: Sweep) -> Ledger:
    return Ledger(make_plan(sweep, FILE), note=pytest.fail, publish=lambda: "a table")


def test_cells_that_differ_in_their_seed_are_one_group() -> None:
    alone = dataclasses.replace(SEEDS, grid={}, seeds=(0, 12))
    found = [[(cell.label, cell.group) for cell in fixed_cells(sweep, DIGITS)] for sweep in (SEEDS, alone)]
    assert found == [
        [(f"{group} seed={seed}", group) for group in ("lamb=0.02", "lamb=0.05") for seed in (0, 1)],
        [("seed=0", "base"), ("seed=12", "base")],
    ]


def test_a_run_has_its_group_and_the_experiment_a_view_of_means() -> None:
    book = ledger(SEEDS)
    cell = make_plan(SEEDS, FILE).missing[0]
    book.start(cell, devices=1.0, resources=str(REQUEST))
    time.sleep(0.1)
    book.end(cell.key, "finished", "")
    assert book.close() == ""
    (entry,) = make_plan(SEEDS, FILE).entries.values()
    assert entry.resources == str(REQUEST) == "1 x (2 CPU, X)"
    assert [*finished_estimates([entry], REQUEST)] == [kind_of_config(cell.config)], "its price is known"
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study")
    (run,) = client.search_runs([experiment.experiment_id], "tags.group = 'lamb=0.02'")
    assert run.info.run_name == "lamb=0.02 seed=0"
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", cell.config.data.fingerprint or "builtin")
    view = json.loads(experiment.tags["mlflow.sharedViewState.seeds"])
    assert view["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "group"}]
    assert view["selectedColumns"][0] == "params.`method.lamb`"
    runs, means = links("http://h:1", store_uri()).splitlines()
    page = f"http://h:1/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    assert json.loads(experiment.tags["mlflow.sharedViewState.cells"]) == {
        "selectedColumns": [*view["selectedColumns"], "params.`seed`"]
    }
    assert [line.split()[-1] for line in (runs, means)] == [f"{page}&viewStateShareKey={k}" for k in ("cells", "seeds")]


def test_a_sweep_with_one_seed_has_one_link_also_in_an_older_store(store: str) -> None:
    ledger(Sweep(name="study", purpose="", base=DIGITS)).close()
    assert len(links("http://h:1", store_uri()).splitlines()) == 1
    line = next(line for line in links("http://h:1", store).splitlines() if line.startswith("demo_lejepa "))
    assert line.endswith("/runs?workflowType=machine_learning")


def test_the_sweeps_own_run_has_plan_file_and_latest_products_and_the_description_a_table(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.write_text("SWEEP = ...")
    sweep = dataclasses.replace(SEEDS, seeds=(0,))
    for content in ("old", "new"):
        plan = make_plan(sweep, file)
        products = {"table.md": content, "curve.png": b"\x89\xff"}
        book = Ledger(plan, note=pytest.fail, publish=lambda: "| a row |\n" * 5000, products=lambda p=products: p)
        book.start(plan.missing[0], devices=1.0)
        book.end(plan.missing[0].key, "finished", "")
        assert book.close() == ""
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study")
    (run,) = client.search_runs([experiment.experiment_id], "tags.role = 'plan'")
    assert (run.info.run_name, run.info.status) == ("plan", "FINISHED")
    folder = Path(client.download_artifacts(run.info.run_id, "."))
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    cells = json.loads(found.pop("plan.json"))["cells"]
    assert found == {"table.md": b"new", "curve.png": b"\x89\xff", "study.py": b"SWEEP = ..."}
    assert [(cell["label"], cell["state"]) for cell in cells] == [("lamb=0.02", "finished"), ("lamb=0.05", "missing")]
    assert experiment.tags["mlflow.note.content"].endswith("| a row |\n\n(cut here)")
