"""A notice that a machine will be taken away: its cell continues on another. On a Ray cluster of several nodes.

The workers of a cluster run the driver's code and find the modules beside the sweep file.
tests/cluster/test_story.py cuts the power of machines.
Run: python -m pytest tests/slow/test_preemption.py
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# In a process of its own: the nodes' environment is that of their driver, and ray.init is of the whole process.
DRIVER = '''
import dataclasses, json, os, subprocess, sys, tempfile, time
from pathlib import Path

from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.lanes.worker import ASK_S, train_cell
from sweeps.engine.cluster.session import ray_session
from sweeps.engine.lanes.pool import LanePool
from sweeps.engine.cluster.nodes import check_nodes, expected_of_nodes

import psutil, ray, ray.train
from ray.cluster_utils import Cluster

folder = Path(sys.argv[1])

def runner(cell, report, checkpoints, host):
    import beside, sweeps
    attempts = folder / beside.ATTEMPTS
    attempts.mkdir(exist_ok=True)
    attempt = len(list(attempts.iterdir()))
    (attempts / f"{attempt}").write_text(ray.get_runtime_context().get_node_id())
    (folder / "code").write_text(sweeps.__file__)
    return train_cell(cell, report if attempt else held_until_noticed(report), checkpoints, host)

def held_until_noticed(report):
    def held(metrics):
        stop, began = report(metrics), time.monotonic()
        while ray.train.get_preemption_info() is None:  # however fast the machine, and however slow the notice
            assert time.monotonic() < began + 180, "no notice"
            time.sleep(0.1)
        time.sleep(ASK_S)  # so that the very next look asks
        return stop
    return held

def reports_of(pool, cell):
    job = {"cell": cell, "checkpoints": str(folder / "checkpoints"), "rungs": ()}
    ticket = ray.get(pool.mailbox.submit.remote("trial", job))
    heard, end, noticed = [], None, False
    while end is None:
        reports, end = ray.get(pool.mailbox.take.remote(ticket, len(heard)))
        heard += reports
        if any("epoch" in report for report in heard) and not noticed:
            noticed = True
            (folder / "with_torch").write_text(" ".join(processes_with_torch()))
            give_notice()
    ray.get(pool.mailbox.abandon_trial.remote("trial"))
    return [report for report in heard if report.get("note") != ""], end  # without the wait for its lane

def processes_with_torch():
    """Of Ray, on all nodes: a head cannot hold hundreds of them."""
    processes = psutil.Process().children(recursive=True)
    return [one.name()[:15] for one in processes if "libtorch" in Path(f"/proc/{one.pid}/maps").read_text()]

def new_node():
    """With files of its own, as on a machine of its own: each unpacks the driver's code."""
    return cluster.add_node(num_cpus=1, temp_dir=tempfile.mkdtemp(dir=os.environ["RAY_TMPDIR"]))

def give_notice():
    drain = "from sweeps.engine.cluster.notice import drain; print(*drain(60))"  # it joins the cluster: a process
    done = subprocess.run([sys.executable, "-c", drain], check=True, stdout=subprocess.PIPE, text=True)
    (folder / "drained").write_text(done.stdout)
    new_node()  # to go to

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    new_node()
    os.environ["RAY_ADDRESS"] = cluster.address
    one = {"num_lanes": 1, "workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    with ray_session(), expected_of_nodes() as expected:
        check_nodes(expected)
        with LanePool(**one, storage=folder, runner=runner, expected=expected) as pool:
            found = reports_of(pool, {"cell_key": "a", **flatten(dataclasses.replace(DIGITS, epochs=3))})
    cluster.shutdown()
    (folder / "reports.json").write_text(json.dumps(found))
'''


def test_on_a_notice_a_cell_leaves_at_once_and_continues_on_another_node_from_its_last_step(tmp_path: Path) -> None:
    (tmp_path / "driver").mkdir()
    driver = tmp_path / "driver/driver.py"
    driver.write_text(DRIVER)
    driver.with_name("beside.py").write_text("ATTEMPTS = 'attempts'")
    # Ray records in its own folder which cluster is to be joined; a short name, for sockets
    with tempfile.TemporaryDirectory(prefix="jepa-", ignore_cleanup_errors=True) as ray:
        environment = os.environ | {"JEPA_RESULTS": str(tmp_path), "OMP_NUM_THREADS": "1", "RAY_TMPDIR": ray}
        subprocess.run([sys.executable, driver, tmp_path], check=True, env=environment, timeout=600)
    reports, end = json.loads((tmp_path / "reports.json").read_text())
    assert end["status"] == "finished"
    first, note, again, *rest = reports
    assert re.fullmatch(r"worker lost \(node [\d.]+ is about to be taken away\); goes on after epoch 1", note["note"])
    # the epoch before it took longer, held as it was: nothing of that is lost
    assert note["lost_s"] < 3, "from the checkpoint to the end of the worker; training itself lost nothing"
    assert [report["epoch"] for report in rest] == [2, 3]
    measured = [{name: value for name, value in report.items() if "system/" not in name} for report in (first, again)]
    assert measured[0] == measured[1], "its past is reported again from the checkpoint, not trained again"
    nodes = [file.read_text() for file in sorted((tmp_path / "attempts").iterdir())]
    assert len(nodes) == len(set(nodes)) == 2, "nothing is placed on a node that is leaving"
    assert (tmp_path / "drained").read_text().split() == nodes[:1], "the head stays"
    assert (tmp_path / "with_torch").read_text() == "ray::RayTrainWo", "only the worker of the trial"
    assert "/working_dir_files/" in (tmp_path / "code").read_text(), "the code of the driver"
