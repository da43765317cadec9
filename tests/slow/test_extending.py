"""docs/extending.md, applied to a copy of the project: its files and edits are made there and its commands run.

Run: python -m pytest tests/slow/test_extending.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extending.md").read_text()
SHORTENED = {  # the other golden files take a sweep of every method
    "tests/unit/test_golden.py": " -k cell_keys",
    "tests/integration/test_golden_sweep.py": " --collect-only",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with every block of the page applied."""
    copy = tmp_path_factory.mktemp("extending") / "project"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    for name, language, text in re.findall(r"^`(\S+)`\n\n```(python|diff)\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL):
        if language == "python":
            (copy / name).write_text(text)
            continue
        for place in text.split("\n\n"):
            lines = place.strip("\n").split("\n")
            old, new = ("\n".join(line[1:] for line in lines if line[:1] in kept) for kept in (" -", " +"))
            assert (copy / name).read_text().count(f"{old}\n") == 1, f"{name}: {old}"
            (copy / name).write_text((copy / name).read_text().replace(f"{old}\n", f"{new}\n"))
    return copy


def run(command: str, project: Path) -> str:
    """Output of a command of the page, with this Python's programs; the cells of no other test are touched."""
    environment = os.environ | {"PYTHONPATH": str(project), "JEPA_RESULTS": str(project / "results")}
    line = command.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(
        ["bash", "-c", line], cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("command", re.findall(r"^\$ (.+)$", PAGE, flags=re.MULTILINE))
def test_a_command_of_the_page_succeeds(command: str, project: Path) -> None:
    run(command + "".join(words for file, words in SHORTENED.items() if file in command), project)


LOSS = '''"""A method of our own."""
from jepa_train.methods import VICReg
class Ours(VICReg):
    name = "own_loss.Ours"
'''
SWEEP = '''"""An encoder and a method of our own."""
import dataclasses, sys
from own_loss import Ours
from jepa_train.presets import DIGITS
from sweeps.engine import Sweep, main
probe, model = dataclasses.replace(DIGITS.probe, protocols=""), dataclasses.replace(DIGITS.model, projector_layers=0)
base = dataclasses.replace(DIGITS, method=Ours(), epochs=1, probe=probe, model=model)
SWEEP = Sweep(name="mine", purpose="Ours.", base=base,
    grid={"model.encoder": ["small_encoders.patches", "torchvision.models.resnet18"]})
if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
'''


def test_a_sweep_outside_the_project_trains_the_encoder_and_the_method_beside_it(project: Path, tmp_path: Path) -> None:
    encoder, sweep = tmp_path / "small_encoders.py", tmp_path / "mine.py"
    encoder.write_text((project / "small_encoders.py").read_text())
    (project / "small_encoders.py").unlink()
    sweep.write_text(SWEEP)
    (tmp_path / "own_loss.py").write_text(LOSS)
    try:
        assert "mine: 2 finished of 2 cells" in run(f".venv/bin/python {sweep}", project)
        assert "outdated" not in run(f".venv/bin/python {sweep} --status", project)
        encoder.write_text(encoder.read_text().replace("64", "32"))
        assert "mine: 1 of 2 cells done" in run(f".venv/bin/python {sweep} --dry-run", project)
    finally:
        (project / "small_encoders.py").write_text(encoder.read_text())


def test_unit_tests_pass_with_the_additions_of_the_page(project: Path) -> None:
    folders = " ".join(f"tests/unit/{name}" for name in ("config", "data", "evaluation", "methods"))
    run(f".venv/bin/python -m pytest -q -x {folders}", project)


def test_the_code_of_the_page_passes_the_linter(project: Path) -> None:
    ours = "--exclude results ."  # which has the sweeps' files as artifacts
    run(f".venv/bin/ruff check {ours} && .venv/bin/ruff format --check {ours}", project)
