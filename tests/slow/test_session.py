"""The session of a user in a checkout of its own: edits, commits and Ctrl-C between launches, then an edited loss.

Run: python -m pytest tests/slow/test_session.py
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from stores import until

ROOT = Path(__file__).parents[2]
PACKAGES = ("analysis", "jepa_train", "search_spaces", "sweeps", "pyproject.toml")
SWEEP = '''"""Two weights, two numbers of views, two seeds."""
import dataclasses, sys
from jepa_train.methods import LeJEPA
from jepa_train.presets import DIGITS
from sweeps.engine import Sweep, main
probe = dataclasses.replace(DIGITS.probe, protocols="knn")
base = dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=1, global_batch=256, probe=probe)
grid = {"method.lamb": [0.02, 0.05], "views.num_global": [2, 4]}
SWEEP = Sweep(name="study", purpose=__doc__, base=base, grid=grid, seeds=(0, 1), cpus_per_worker=2)
if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
'''


class Checkout:
    """A copy of the project in a repository, with a results folder, and the commands of its user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in listed.stdout.split("\n")[:-1]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
        self.file = folder / "sweeps" / "study.py"
        self.file.write_text(SWEEP)
        self.environment = {name: text for name, text in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        self.environment |= {"PYTHONPATH": str(folder), "JEPA_RESULTS": str(folder / "results"), "OMP_NUM_THREADS": "1"}
        self.processes: list[subprocess.Popen[str]] = []
        self.git("init", "-b", "main")

    def git(self, *words: str) -> None:
        who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", "-C", str(self.folder), *who, *words], check=True, capture_output=True)

    def commit(self, text: str) -> None:
        (self.folder / "README.md").write_text(text)
        self.git("add", "analysis", "jepa_train", "sweeps", "README.md")
        self.git("commit", "-m", text)

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a process in the background ignores it
        options = {"cwd": self.folder, "env": self.environment, "preexec_fn": heeds, **pipes}
        self.processes.append(subprocess.Popen(command, text=True, **options))
        return self.processes[-1]

    def run(self, *words: str) -> str:
        process = self.start(*words)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        return output


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """A checkout whose processes are killed at the end; their Ray dies with them."""
    made = Checkout(tmp_path / "project")
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def test_commits_and_new_values_leave_one_table_and_an_edited_loss_makes_it_outdated(checkout: Checkout) -> None:
    assert "study: 8 finished of 8 cells" in checkout.run("sweeps/study.py")
    checkout.commit("the first results")
    checkout.edit("sweeps/study.py", "[0.02, 0.05]", "[0.02, 0.05, 0.1]")
    checkout.commit("a value more")
    process, lines = checkout.start("sweeps/study.py"), []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if " 9/12 " in line:
            break
    process.send_signal(signal.SIGINT)
    until(lambda: process.poll() is not None, output=lambda: "".join(lines))
    assert process.returncode == 130, "".join([*lines, process.stdout.read()])
    checkout.commit("a README")
    output = checkout.run("sweeps/study.py")
    assert "study: 12 finished of 12 cells" in output
    assert " ± " in output
    assert "outdated" not in output
    assert "code version" not in output

    checkout.edit("jepa_train/methods/lejepa.py", "loss = (1 - self.lamb)", "loss = 2 * (1 - self.lamb)")
    assert "study: 12 finished of 12 cells; 0 ended in this launch" in checkout.run("sweeps/study.py")
    note = "(12 of 12 runs are by other code than the present); python sweeps/study.py --retry outdated runs them again"
    assert note in checkout.run("-m", "analysis", "study")
    output = checkout.run("sweeps/study.py", "--retry", "outdated")
    assert "study: 12 finished of 12 cells; 12 ended in this launch" in output
    assert "outdated" not in output
    assert "goes on from its last checkpoint" not in output
