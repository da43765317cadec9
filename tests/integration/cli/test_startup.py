"""Processes of their own: modules imported at start-up, and errors that leave a sweep file.

Run: python -m pytest tests/integration/cli/test_startup.py
"""

import subprocess
import sys
from pathlib import Path

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
WRONG = """
from sweeps.engine.parser import report_config_errors
from jepa_train.base.errors import ConfigError
report_config_errors()
print("before")
raise {error}
"""


def test_help_and_light_processes_import_no_torch() -> None:
    """The modules that are sent by value, in the processes of trials and of the mailbox, and three commands."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_config_error_and_ctrl_c_are_one_line_and_a_python_error_keeps_its_traceback(tmp_path: Path) -> None:
    def run(error: str) -> tuple[int, str, str]:
        (tmp_path / "study.py").write_text(WRONG.format(error=error))
        done = subprocess.run([sys.executable, tmp_path / "study.py"], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    assert run("KeyboardInterrupt()") == (130, "before\n", "stopped; the same command goes on where this one stopped\n")
    assert run("ConfigError('name must be text')") == (2, "before\n", "error: name must be text\n")
    code, printed, error = run("TypeError('no field lam')")
    assert (code, printed) == (1, "before\n")
    assert error.startswith("Traceback")
    assert error.endswith("TypeError: no field lam\n")
