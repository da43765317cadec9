"""A machine that is taken away: its cell goes on at another, as often as that happens. On a Ray cluster of nodes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

# In a process of its own: the nodes' environment is that of their driver, and ray.init is of the whole process.
DRIVER = """
import json, os, sys, time
from pathlib import Path
from types import SimpleNamespace

from sweeps.engine.cluster import _ENVIRONMENT, ray_session
from sweeps.engine.lanes import LanePool

os.environ |= _ENVIRONMENT
import ray, ray.cloudpickle
from ray.cluster_utils import Cluster

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
folder = Path(sys.argv[1])

def runner(cell, report, *_):
    attempt = len(list(folder.glob("attempt*")))
    (folder / f"attempt{attempt}").touch()
    for epoch in range(1, 4 if attempt else 10_000):
        time.sleep(0.2)
        report({"epoch": epoch})
    return SimpleNamespace(status="finished", reason="")

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
node = cluster.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = cluster.address
heard, end = [], None
with ray_session():
    pool = LanePool(num_lanes=1, workers=1, cpus_per_worker=1, gpus_per_worker=0, storage=folder, runner=runner)
    with pool:
        job = {"cell": {}, "checkpoints": "unused", "rungs": ()}
        ticket = ray.get(pool.mailbox.submit.remote("trial", job))
        while end is None:
            reports, end = ray.get(pool.mailbox.take.remote(ticket, len(heard)))
            heard += reports
            if heard and node is not None:
                cluster.add_node(num_cpus=1)
                cluster.remove_node(node, allow_graceful=False)
                node = None
cluster.shutdown()
(folder / "heard.json").write_text(json.dumps([heard, end]))
"""


def test_a_cell_whose_node_is_taken_away_goes_on_at_another(tmp_path: Path) -> None:
    environment = os.environ | {"JEPA_RESULTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", DRIVER, str(tmp_path)], check=True, env=environment, timeout=400)
    heard, end = json.loads((tmp_path / "heard.json").read_text())
    assert end["status"] == "finished"
    before = next(number for number, report in enumerate(heard) if "note" in report)
    # at once, or not yet: Ray may take longer to miss the node than to start the new worker
    causes = r"node [\d.]+ is gone|its worker process died: [^)]+"
    assert re.fullmatch(rf"worker lost \(({causes})\); goes on after epoch {before}", heard[before]["note"])
    assert [report["epoch"] for report in heard[before + 1 :]] == [1, 2, 3]
