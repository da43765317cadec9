"""Machines that are taken away: cells continue on others, as often as that happens. On a Ray cluster of several nodes.

Also: the workers of a cluster run the driver's code and find the modules beside the sweep file.
Run: python -m pytest tests/slow/test_preemption.py
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

# In a process of its own: the nodes' environment is that of their driver, and ray.init is of the whole process.
DRIVER = '''
import dataclasses, json, os, subprocess, sys, tempfile, time
from pathlib import Path
from types import SimpleNamespace

from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.lanes.worker import ASK_S, train_cell
from sweeps.engine.cluster.session import ray_session
from sweeps.engine.lanes.pool import LanePool
from sweeps.engine.cluster.nodes import check_nodes, expected_of_nodes

import ray, ray.train
from ray.cluster_utils import Cluster

folder = Path(sys.argv[1])

def runner(cell, report, checkpoints, host):
    import beside, sweeps
    attempts = folder / cell.get("kind", "trained")
    attempts.mkdir(exist_ok=True)
    attempt = len(list(attempts.iterdir()))
    (attempts / f"{attempt}").write_text(ray.get_runtime_context().get_node_id())
    (folder / "code").write_text(sweeps.__file__)
    if "kind" not in cell:
        return train_cell(cell, report if attempt else held_until_noticed(report), checkpoints, host)
    for epoch in range(1, beside.EPOCHS if attempt else 10_000):
        time.sleep(0.2)
        report({"epoch": epoch})
    return SimpleNamespace(status="finished", reason="")

def held_until_noticed(report):
    def held(metrics):
        stop, began = report(metrics), time.monotonic()
        while ray.train.get_preemption_info() is None:  # however fast the machine, and however slow the notice
            assert time.monotonic() < began + 180, "no notice"
            time.sleep(0.1)
        time.sleep(ASK_S)  # so that the very next look asks
        return stop
    return held

def reports_of(pool, cell, disturb):
    job = {"cell": cell, "checkpoints": str(folder / "checkpoints"), "rungs": ()}
    ticket = ray.get(pool.mailbox.submit.remote("trial", job))
    heard, end, disturbed = [], None, False
    while end is None:
        reports, end = ray.get(pool.mailbox.take.remote(ticket, len(heard)))
        heard += reports
        if any("epoch" in report for report in heard) and not disturbed:
            disturbed = True
            disturb()
    ray.get(pool.mailbox.abandon_trial.remote("trial"))
    return [report for report in heard if report.get("note") != ""], end  # without the wait for its lane

def new_node():
    """With files of its own, as on a machine of its own: each unpacks the driver's code."""
    return cluster.add_node(num_cpus=1, temp_dir=tempfile.mkdtemp(dir=os.environ["RAY_TMPDIR"]))

def remove():
    new_node()
    cluster.remove_node(nodes.pop(), allow_graceful=False)

def give_notice():
    drain = "from sweeps.engine.cluster.notice import drain; print(*drain(60))"  # it joins the cluster: a process
    done = subprocess.run([sys.executable, "-c", drain], check=True, stdout=subprocess.PIPE, text=True)
    (folder / "drained").write_text(done.stdout)
    new_node()  # to go to

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [new_node()]
    os.environ["RAY_ADDRESS"] = cluster.address
    one = {"num_lanes": 1, "workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    with ray_session(), expected_of_nodes() as expected:
        check_nodes(expected)
        with LanePool(**one, storage=folder, runner=runner, expected=expected) as pool:
            found = {"removed": reports_of(pool, {"kind": "removed"}, remove)}
            config = dataclasses.replace(DIGITS, epochs=3)
            found["noticed"] = reports_of(pool, {"cell_key": "a", **flatten(config)}, give_notice)
    cluster.shutdown()
    (folder / "reports.json").write_text(json.dumps(found))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("preemption")
    (made / "driver").mkdir()
    (made / "driver" / "driver.py").write_text(DRIVER)
    (made / "driver" / "beside.py").write_text("EPOCHS = 4")
    # Ray records in its own folder which cluster is to be joined; a short name, for sockets
    with tempfile.TemporaryDirectory(prefix="jepa-", ignore_cleanup_errors=True) as ray:
        environment = os.environ | {"JEPA_RESULTS": str(made), "OMP_NUM_THREADS": "1", "RAY_TMPDIR": ray}
        subprocess.run([sys.executable, made / "driver/driver.py", made], check=True, env=environment, timeout=600)
    return made


def result(folder: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    """The reports, the final status, and the nodes of the attempts."""
    reports, end = json.loads((folder / "reports.json").read_text())[name]
    attempts = folder / ("removed" if name == "removed" else "trained")
    return reports, end, [file.read_text() for file in sorted(attempts.iterdir())]


def test_a_cell_whose_node_is_gone_continues_on_another(folder: Path) -> None:
    reports, end, nodes = result(folder, "removed")
    assert end["status"] == "finished"
    before = next(number for number, report in enumerate(reports) if "note" in report)
    # at once, or not yet: Ray may take longer to miss the node than to start the new worker
    causes = r"node [\d.]+ is gone|its worker process died: [^)]+"
    assert re.fullmatch(rf"worker lost \(({causes})\); goes on after epoch {before}", reports[before]["note"])
    assert [report["epoch"] for report in reports[before + 1 :]] == [1, 2, 3]
    assert len(set(nodes)) == 2


def test_on_a_notice_a_cell_leaves_at_once_and_continues_on_another_node_from_its_last_step(folder: Path) -> None:
    reports, end, nodes = result(folder, "noticed")
    assert end["status"] == "finished"
    first, note, again, *rest = reports
    assert re.fullmatch(r"worker lost \(node [\d.]+ is about to be taken away\); goes on after epoch 1", note["note"])
    # the epoch before it took longer, held as it was: nothing of that is lost
    assert note["lost_s"] < 3, "from the checkpoint to the end of the worker; training itself lost nothing"
    assert [report["epoch"] for report in rest] == [2, 3]
    measured = [{name: value for name, value in report.items() if "system/" not in name} for report in (first, again)]
    assert measured[0] == measured[1], "its past is reported again from the checkpoint, not trained again"
    assert len(nodes) == len(set(nodes)) == 2, "nothing is placed on a node that is leaving"
    assert (folder / "drained").read_text().split() == nodes[:1], "the head stays"


def test_the_workers_of_a_cluster_run_the_code_of_the_driver(folder: Path) -> None:
    assert "/working_dir_files/" in (folder / "code").read_text()
