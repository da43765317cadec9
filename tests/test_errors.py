"""Mistakes in a sweep file are answered in one line that names the file and the line."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.engine.errors import one_line

HEAD = """import dataclasses
from jepa_train.methods import LeJEPA, RectifiedLpJEPA
from jepa_train.config import DataConfig, TrainConfig
from jepa_train.presets import DIGITS
from sweeps.engine import Sweep, main
"""


def answer_to(tmp_path: Path, body: str) -> str | None:
    """What the user is told when the file is run."""
    file = tmp_path / "study.py"
    file.write_text(HEAD + body)
    try:
        runpy.run_path(str(file))
    except Exception as error:  # noqa: BLE001 (every kind is to be answered)
        return one_line(error)
    raise AssertionError("the file is fine")


@pytest.mark.parametrize(
    ("body", "end"),
    [
        ("LeJEPA(lamb=1.5)", "6: lamb is a convex weight in [0, 1], got 1.5; the paper starts at 0.05"),
        ("LeJEPA(lamb='0.1')", "6: lamb must be a number, got '0.1' (str)"),
        ("LeJEPA(lam=0.1)", "6: LeJEPA has no field 'lam'; did you mean 'lamb'?"),
        ("RectifiedLpJEPA(p=0)", "6: p must be positive, got 0.0; the paper uses 0.25 to 2"),
        ("DataConfig(name='digit')", "6: name must be a known dataset, got 'digit'; did you mean 'digits'?"),
        ("\nTrainConfig(epoch=3)", "7: TrainConfig has no field 'epoch'; did you mean 'epochs'?"),
        ("dataclasses.replace(DIGITS, epoch=3)", "6: TrainConfig has no field 'epoch'; did you mean 'epochs'?"),
        (
            "Sweep(name='study', purpose='', base=DIGITS, grid={'method.lamda': [0.1]})",
            "6: method.lamda is not a field of the config; did you mean 'method.lamb'?",
        ),
    ],
)
def test_the_line_says_where_and_what(tmp_path: Path, body: str, end: str):
    assert answer_to(tmp_path, body) == f"{tmp_path / 'study.py'}:{end}"


@pytest.mark.parametrize("body", ["1 / 0", "int('x')", "print(nmae)", "dict(a=1).pop('b')"])
def test_other_errors_keep_their_traceback(tmp_path: Path, body: str):
    assert answer_to(tmp_path, body) is None


def test_a_sweep_file_that_is_wrong_prints_the_line_and_no_traceback(tmp_path: Path):
    file = tmp_path / "study.py"
    file.write_text(HEAD + "LeJEPA(lamb=1.5)\n")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: {file}:6: lamb is a convex weight in [0, 1], got 1.5; the paper starts at 0.05\n"
    assert [path.name for path in tmp_path.iterdir()] == ["study.py"]


def test_a_sweep_named_otherwise_than_its_file_is_refused(tmp_path: Path):
    file = tmp_path / "study.py"
    file.write_text(HEAD + "main(Sweep(name='other', purpose='', base=DIGITS), __file__, [])")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr.startswith("error: name must be the stem of the sweep's file, got 'other' in study.py")


def test_sweeps_are_launched_by_name_once_each():
    def told(*words: str) -> str:
        command = [sys.executable, "-m", "sweeps", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        return done.stderr

    assert told("demo_lejpa").startswith("error: 'demo_lejpa' is no sweep; did you mean 'demo_lejepa'?")
    assert told("demo_lejepa", "demo_lejepa") == "error: sweep demo_lejepa is given twice; name it once\n"
