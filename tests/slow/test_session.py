"""A Ray session of a launch's own leaves no process and no file outside the results folder.

Run: python -m pytest tests/slow/test_session.py
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

DRIVER = """
import json, os, psutil, ray
from sweeps.engine.cluster.session import ray_session
with ray_session(1):
    ray.get(ray.remote(lambda: 1).remote())
    link = os.path.dirname(ray._private.worker._global_node.get_temp_dir_path())
    pids = [process.pid for process in psutil.Process().children(recursive=True)]
print(json.dumps([link, pids]))
"""


def test_a_session_ends_completely(tmp_path: Path) -> None:
    results = tmp_path / ("long" * 30)  # longer than a socket's path may be
    environment = os.environ | {"JEPA_RESULTS": str(results), "RAY_ADDRESS": "local"}
    done = subprocess.run([sys.executable, "-c", DRIVER], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    link, pids = json.loads(done.stdout.splitlines()[-1])
    assert len(pids) > 3
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(psutil.pid_exists, pids))
    assert not Path(link).exists()
    assert (results / "ray").is_dir()
