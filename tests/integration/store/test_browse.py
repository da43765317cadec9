"""The store in the MLflow UI: links, groups of seeds, artifacts of the sweep's own run, resources of a cell.

Run: python -m pytest tests/integration/store/test_browse.py
"""

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


def ledger(sweep: Sweep, notes: list[str], **products: object) -> Ledger:
    return Ledger(make_plan(sweep, FILE), note=notes.append, publish=lambda: "a table", **products)


def test_cells_that_differ_in_their_seed_are_one_group() -> None:
    cells = fixed_cells(SEEDS, DIGITS)
    assert [(cell.label, cell.group) for cell in cells][:2] == [
        ("lamb=0.02 seed=0", "lamb=0.02"),
        ("lamb=0.02 seed=1", "lamb=0.02"),
    ]
    assert len({cell.group for cell in cells}) == 2
    alone = Sweep(name="study", purpose="", base=DIGITS, seeds=(0, 12))
    assert {(cell.label, cell.group) for cell in fixed_cells(alone, DIGITS)} == {
        ("seed=0", "base"),
        ("seed=12", "base"),
    }


def test_a_run_has_its_group_and_the_experiment_a_view_of_means() -> None:
    notes: list[str] = []
    book = ledger(SEEDS, notes)
    cell = make_plan(SEEDS, FILE).missing[0]
    book.start(cell, devices=1.0, resources=str(REQUEST))
    book.end(cell.key, "finished", "")
    assert (book.close(), notes) == ("", [])
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
    ledger(Sweep(name="study", purpose="", base=DIGITS), []).close()
    assert len(links("http://h:1", store_uri()).splitlines()) == 1
    line = next(line for line in links("http://h:1", store).splitlines() if line.startswith("demo_lejepa "))
    assert line.endswith("/runs?workflowType=machine_learning")


def test_the_sweeps_own_run_has_the_latest_texts_and_figures() -> None:
    for content in ("old", "new"):
        book = ledger(SEEDS, [], products=lambda content=content: {"table.md": content, "curve.png": b"\x89\xff"})
        assert book.close() == ""
    client = MlflowClient(store_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id], "tags.role = 'plan'")
    folder = Path(client.download_artifacts(run.info.run_id, "."))
    assert (folder / "table.md").read_text() == "new"
    assert (folder / "curve.png").read_bytes() == b"\x89\xff"
    assert sorted(file.name for file in folder.iterdir()) == ["curve.png", "plan.json", "table.md"]


def test_a_failure_of_tables_and_figures_does_not_end_a_sweep() -> None:
    def broken() -> dict[str, str | bytes]:
        raise KeyError("no column")

    notes: list[str] = []
    assert ledger(SEEDS, notes, products=broken).close() == ""
    assert notes == ["tables and figures cannot be made now: 'no column'"]
    tags = MlflowClient(store_uri()).get_experiment_by_name("study").tags
    assert tags["mlflow.note.content"] == "A study.\n\na table"


def test_prices_come_from_what_the_store_says_of_finished_cells() -> None:
    book = ledger(SEEDS, [])
    cell = make_plan(SEEDS, FILE).missing[0]
    book.start(cell, devices=1.0, resources=str(REQUEST))
    time.sleep(0.1)
    book.end(cell.key, "finished", "")
    book.close()
    (entry,) = make_plan(SEEDS, FILE).entries.values()
    assert entry.resources == str(REQUEST) == "1 x (2 CPU, X)"
    assert [*finished_estimates([entry], REQUEST)] == [kind_of_config(cell.config)]
