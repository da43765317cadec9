"""Start-up time: what trains nothing imports neither torch nor MLflow."""

import subprocess
import sys

LIGHT = """
import contextlib, importlib, sys
from sweeps.__main__ import main

def loaded(*libraries):
    return [name for name in libraries if name in sys.modules]

with contextlib.suppress(SystemExit):
    main(["--help"])
assert main(["demo_lejpa"]) == 2
assert not loaded("torch", "mlflow", "optuna", "ray"), loaded("torch", "mlflow", "optuna", "ray")
by_value = ["lanes.mailbox", "lanes.tasks", "lanes.trial", "cluster.node_check"]
for name in [*by_value, "cluster.notice", "cluster.backup", "cli.fetch"]:
    importlib.import_module(f"sweeps.engine.{name}")
    assert not loaded("torch", "mlflow", "optuna"), name
"""


def test_help_and_light_processes_import_no_torch() -> None:
    """The modules that are sent by value, in the processes of trials and of the mailbox, and three commands."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
