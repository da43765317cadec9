"""notice on a real cluster, head and worker on this machine: the worker's node is drained with the deadline.

Run: python -m pytest tests/slow/test_drain.py
"""

import json
import os
import subprocess
import sys
import tempfile

# In a process of its own: a cluster of nodes is of the whole process. The node is busy: an idle one ends once drained.
DRIVER = """
import json, os, subprocess, sys, time
import ray
from ray.cluster_utils import Cluster
from sweeps.engine.cluster.ray_private import draining_nodes

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
worker = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
busy = ray.remote(num_cpus=1)(lambda: time.sleep(300)).remote()
while ray.available_resources().get("CPU"):
    time.sleep(0.1)
drained = "import json; from sweeps.engine.cluster.notice import drain; print(json.dumps(drain(90)))"
found = subprocess.run([sys.executable, "-c", drained], env=os.environ | {"RAY_ADDRESS": cluster.address}, stdout=-1)
left = [round(deadline / 1000 - time.time()) for deadline in draining_nodes().values()]
print(json.dumps([worker.node_id, json.loads(found.stdout), [*draining_nodes()], left]))
ray.shutdown()
cluster.shutdown()
"""


def test_the_node_of_this_machine_is_drained_and_the_head_is_not() -> None:
    # Ray records in its own folder which cluster is to be joined; a short name, for sockets
    with tempfile.TemporaryDirectory(prefix="jepa-", ignore_cleanup_errors=True) as ray:
        environment = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"} | {"RAY_TMPDIR": ray}
        done = subprocess.run(
            [sys.executable, "-c", DRIVER], env=environment, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    worker, returned, draining, (left,) = json.loads(done.stdout.splitlines()[-1])
    assert returned == draining == [worker]
    assert 30 < left <= 90
