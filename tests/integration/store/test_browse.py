"""The store in the MLflow UI: links, groups of seeds, artifacts of the sweep's own run, resources of a cell.

Run: python -m pytest tests/integration/store/test_browse.py
"""

import dataclasses
import json
import re
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import unquote

import pytest
from launches import record
from mlflow import MlflowClient

from analysis.store.sources import open_source
from analysis.sweep_list import sweep_lines
from analysis.ui import links
from jepa_train.config.presets import DIGITS
from sweeps.engine.cluster.resources import Request
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run.estimate import finished_estimates, kind_of_config
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.spec.cells import fixed_cells
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.mlflow_writer import MlflowWriter
from sweeps.engine.store.reader import store_uri

FILE = Path("study.py")
SEEDS = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(0, 1))
REQUEST = Request(workers=1, cpus=2, gpus=0, device="X")

pytestmark = pytest.mark.usefixtures("results")


def ledger(sweep: Sweep) -> Ledger:
    return Ledger(make_plan(sweep, FILE), note=pytest.fail, publish=lambda: "a table")


def test_cells_that_differ_in_their_seed_alone_are_one_group() -> None:
    alone, longer = dataclasses.replace(SEEDS, grid={}, seeds=(0, 12)), dataclasses.replace(DIGITS, epochs=8)
    bases = ((SEEDS, DIGITS), (alone, DIGITS), (SEEDS, longer))
    found = [fixed_cells(sweep, base) for sweep, base in bases]
    assert [[(cell.label, cell.setting) for cell in cells] for cells in found[:2]] == [
        [(f"{setting} seed={seed}", setting) for setting in ("lamb=0.02", "lamb=0.05") for seed in (0, 1)],
        [("seed=0", "base"), ("seed=12", "base")],
    ]
    groups = [cell.group for cells in found for cell in cells]
    assert groups[::2] == groups[1::2], "both seeds"
    assert len({*groups}) == 5, "other epochs are another group, although the labels are equal"
    assert all(cell.group.startswith(f"{cell.setting} (") for cells in found for cell in cells)


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
    (run,) = client.search_runs([experiment.experiment_id], f"tags.group = '{cell.group}'")
    assert run.info.run_name == "lamb=0.02 seed=0"
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", cell.config.data.fingerprint or "builtin")
    view = json.loads(experiment.tags["mlflow.sharedViewState.seeds"])
    assert view["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "group"}]
    assert view["selectedColumns"][0] == "params.`method.lamb`"
    runs, means, charts = links("http://h:1", store_uri()).splitlines()
    page = f"http://h:1/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    assert json.loads(experiment.tags["mlflow.sharedViewState.cells"]) == {
        "selectedColumns": [*view["selectedColumns"], "params.`seed`"],
        "searchFilter": view["searchFilter"],
    }
    assert [line.split()[-1] for line in (runs, means)] == [f"{page}&viewStateShareKey={k}" for k in ("cells", "seeds")]
    compare = json.loads(experiment.tags["mlflow.sharedViewState.compare"])
    (named,) = re.findall(r"\[Compare the runs\]\((.*)\)", experiment.tags["mlflow.note.content"])
    assert charts.split()[-1] == f"{page}&viewStateShareKey=compare&compareRunsMode=CHART"
    assert f"http://h:1/{unquote(named)}" == charts.split()[-1]
    parallel, curve = compare["compareRunCharts"]
    assert (parallel["selectedParams"], parallel["selectedMetrics"]) == (["method.lamb"], ["val/probe_top1"])
    assert curve["metricKey"] == "val/probe_top1"
    shown = client.search_runs([experiment.experiment_id], compare["searchFilter"])
    assert [one.info.run_id for one in shown] == [run.info.run_id], "without the sweep's own run"


def means_over_seeds() -> dict[str, tuple[int, float]]:
    """Number and mean epochs of the runs in each group of the view "seeds", as the UI asks the store for them."""
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study")
    view = json.loads(experiment.tags["mlflow.sharedViewState.seeds"])
    groups = defaultdict(list)
    for run in client.search_runs([experiment.experiment_id], view["searchFilter"]):
        if "group" in run.data.tags:
            groups[run.data.tags["group"].partition(" (")[0]].append(int(run.data.params["epochs"]))
    return {group: (len(epochs), mean(epochs)) for group, epochs in groups.items()}


def launch(epochs: int, **edit: Any) -> None:
    """Launch the sweep with cells of so many epochs, all of which finish."""
    plan = make_plan(dataclasses.replace(SEEDS, base=dataclasses.replace(DIGITS, epochs=epochs), **edit), FILE)
    record(plan, plan.missing, lambda _: {"epoch": float(epochs), "val/probe_top1": 0.5})


@pytest.mark.parametrize("by_sql", [True, False])
def test_the_view_of_means_has_the_runs_of_the_present_plan(by_sql: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not by_sql:  # as on a server
        monkeypatch.setattr(MlflowWriter, "_tagged_by_sql", lambda *_: False)
    both = ("lamb=0.02", "lamb=0.05")
    launch(5)
    assert means_over_seeds() == dict.fromkeys(both, (2, 5))
    launch(8)
    assert means_over_seeds() == dict.fromkeys(both, (2, 8)), "not the mean of 5 and 8 epochs"
    launch(8, grid={"method.lamb": [0.05, 0.1], "method.num_slices": [16]})
    assert {number for number, _ in means_over_seeds().values()} == {2}
    launch(5)
    assert means_over_seeds() == dict.fromkeys(both, (2, 5)), "runs that are asked for again lose the mark"
    launch(5, grid={"method.lamb": [0.02, 0.05], "optim.lr": [DIGITS.optim.lr]})
    assert means_over_seeds() == {f"{group} lr={DIGITS.optim.lr}": (2, 5) for group in both}, (
        "the same runs under other labels"
    )


def test_the_list_of_sweeps_counts_the_present_cells() -> None:
    launch(5)
    plan = make_plan(dataclasses.replace(SEEDS, base=dataclasses.replace(DIGITS, epochs=8)), FILE)
    values = iter((0.5, 0.7, 0.55))
    record(plan, plan.missing[:3], lambda _: {"epoch": 8.0, "val/probe_top1": next(values)})
    _, line, below = sweep_lines(open_source(store_uri()))
    assert line.split()[:2] == ["study", "3/4"], "without the cells of 5 epochs"
    assert line.endswith("  0.6 probe_top1"), "the mean of 0.5 and 0.7"
    assert below == "  1 missing"


def test_a_run_that_another_one_replaces_and_a_cell_that_comes_back_during_a_launch() -> None:
    launch(5)
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study").experiment_id
    twin = client.search_runs([experiment], "tags.cell_key != ''")[0]
    tags = {name: twin.data.tags[name] for name in ("cell_key", "role", "group")}  # after a lost answer
    again = client.create_run(experiment, start_time=1, tags=tags)
    launch(5, seeds=(0,))
    stale = {run.info.run_id: run.data.tags.get("stale") for run in client.search_runs([experiment])}
    assert stale[again.info.run_id] == ("replaced" if twin.data.params["seed"] == "0" else "not asked for")
    assert [*stale.values()].count("not asked for") >= 2
    plan = make_plan(dataclasses.replace(SEEDS, base=dataclasses.replace(DIGITS, epochs=5), seeds=(0,)), FILE)
    book = Ledger(plan, note=pytest.fail, publish=str)
    book.record_cells(plan.entries)
    assert book.close() == ""
    stale = {run.data.tags.get("stale") for run in client.search_runs([experiment], "tags.status = 'finished'")}
    assert stale == {None}, "as when a search confirms its winner"


def test_a_sweep_with_one_seed_has_no_means_and_an_older_store_one_link(store: str) -> None:
    ledger(Sweep(name="study", purpose="", base=DIGITS)).close()
    assert len(links("http://h:1", store_uri()).splitlines()) == 2, "cells and their comparison"
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
