"""Mistakes in a sweep file are answered in one line that names the file and the line."""

import importlib
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sweeps.__main__ import main as sweeps_main
from sweeps.engine.cli import main
from sweeps.engine.cli.errors import answer_line, install

HEAD = """import dataclasses
from jepa_train.methods import LeJEPA, RectifiedLpJEPA
from jepa_train.config import DataConfig, TrainConfig
from jepa_train.config.presets import DIGITS, PRESETS
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sweeps.engine import Asha, BestOf, Sweep, main
"""


def answer_to(tmp_path: Path, body: str) -> str | None:
    """What the user is told when the file is run."""
    file = tmp_path / "study.py"
    file.write_text(HEAD + body)
    try:
        with warnings.catch_warnings():
            install()
            runpy.run_path(str(file))
    except Exception as error:  # noqa: BLE001 (every kind is to be answered)
        return answer_line(error)
    raise AssertionError("the file is fine")


@pytest.mark.parametrize(
    ("body", "end"),
    [
        ("LeJEPA(lamb=1.5)", "7: lamb is a convex weight in [0, 1], got 1.5; the paper starts at 0.05"),
        ("LeJEPA(lamb='0.1')", "7: lamb must be a number, got '0.1' (str)"),
        ("LeJEPA(lam=0.1)", "7: LeJEPA has no field 'lam'; did you mean 'lamb'?"),
        ("RectifiedLpJEPA(p=0)", "7: p must be positive, got 0.0; the paper uses 0.25 to 2"),
        ("DataConfig(name='digit')", "7: name must be a known dataset, got 'digit'; did you mean 'digits'?"),
        ("\nTrainConfig(epoch=3)", "8: TrainConfig has no field 'epoch'; did you mean 'epochs'?"),
        ("dataclasses.replace(DIGITS, epoch=3)", "7: TrainConfig has no field 'epoch'; did you mean 'epochs'?"),
        (
            "Sweep(name='study', purpose='', base=DIGITS, grid={'method.lamda': [0.1]})",
            "7: method.lamda is not a field of the config; did you mean 'method.lamb'?",
        ),
        ("print(DIGIT)", "7: name 'DIGIT' is not defined; did you mean 'DIGITS'?"),
        ("DIGITS.epoch", "7: 'TrainConfig' object has no attribute 'epoch'; did you mean 'epochs'?"),
        ("\n\ndict(a=1).pop('b')", "9: there is no 'b'"),
        ("PRESETS['digts']", "7: preset must be a known preset, got 'digts'; did you mean 'digits'?"),
        ("Asha(first=0)", "7: Asha: first must be at least 1 epoch, got 0; try 6"),
        ("Asha(frist=2)", "7: Asha has no field 'frist'; did you mean 'first'?"),
    ],
)
def test_the_line_says_where_and_what(tmp_path: Path, body: str, end: str):
    assert answer_to(tmp_path, body) == f"{tmp_path / 'study.py'}:{end}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("FloatDistribution(0.1, 0.01)", ("low", "0.1", "high", "0.01")),
        ("FloatDistribution(0.0, 0.1, log=True)", ("low", "log", "0.0")),
        ("CategoricalDistribution([])", ("choices",)),
        ("FloatDistribution('a', 1)", ("'str' and 'int'",)),
        (
            "FloatDistribution(0.0, 1.0, step=0.3)",
            ("FloatDistribution(...)", "[0.0, 1.0]", "step=0.3", "Write [0.0, 0.9]"),
        ),
        ("FloatDistribution(0, 10**400)", ("FloatDistribution(...)", "too large")),
        ("from jepa_train.config.presets import DIGIT", ("cannot import name 'DIGIT'", "did you mean 'DIGITS'?")),
        ("Sweep(name='study', purpose='', base=DIGITS)()", ("'Sweep' object is not callable",)),
        ("FloatDistribution(0.1)", ("FloatDistribution(...) missing", "'high'", "its fields are low, high, log, step")),
        ("FloatDistribution(0.1, 1.0, logs=True)", ("FloatDistribution has no field 'logs'; did you mean 'log'?",)),
        ("LeJEPA(0.1)", ("LeJEPA(...) takes 1 positional argument", "its fields are lamb, num_slices")),
        ("Sweep(name='study', base=DIGITS)", ("Sweep(...) missing", "'purpose'")),
        ("Sweep(name='study', purpose=__doc__, base=DIGITS)", ("purpose", "None", "docstring")),
        ("Sweep(name='study', purpose='', base=DIGITS, references=({'epochs': 0}))", ("references", "comma")),
        ("dataclasses.replace(DIGITS, method='lejepa')", ("method", "LeJEPA(...)", "'lejepa'")),
        ("RectifiedLpJEPA(mu=1e308)", ("mu", "1e+06", "1e+308")),
        ("def own(lamb):\n    return LeJEPA(lamb=lamb)\nif False:\n    pass\nown(2)", ("lamb", "2.0")),
    ],
)
def test_what_optuna_or_python_refuses_is_answered_in_one_line_too(tmp_path: Path, body: str, words: tuple[str, ...]):
    answer = answer_to(tmp_path, body)
    assert answer is not None
    assert "\n" not in answer
    line = 8 if body.startswith("def") else 7
    assert answer.startswith(f"{tmp_path / 'study.py'}:{line}: ")
    assert all(word in answer for word in words), answer


def test_a_mistake_in_an_imported_space_is_placed_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_space.py").write_text(HEAD + "SPACE = {'optim.lr': FloatDistribution(0.1, 0.01)}")
    monkeypatch.syspath_prepend(tmp_path)
    assert str(answer_to(tmp_path, "import my_space")).startswith(f"{tmp_path / 'my_space.py'}:7: ")


def test_a_module_that_is_no_python_is_placed_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "no_python.py").write_text("SPACE = {\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert answer_to(tmp_path, "import no_python") == f"{tmp_path / 'no_python.py'}:1: '{{' was never closed"


def test_the_engines_own_errors_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same ValueError, raised while a sweep runs."""
    monkeypatch.setattr(main, "launch", main.launch)  # what the file changes is put back
    body = "import sweeps.engine.cli.main as program\nprogram.launch = lambda *_: LeJEPA(lamb=2)\n"
    assert answer_to(tmp_path, body + "main(Sweep(name='study', purpose='', base=DIGITS), __file__, [])") is None


def test_what_the_file_printed_before_its_mistake_is_not_lost(tmp_path: Path):
    file = tmp_path / "study.py"
    file.write_text(HEAD + "print('before')\nLeJEPA(lamb=1.5)\n")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "before\n")


@pytest.mark.parametrize("body", ["1 / 0", "int('x')"])
def test_other_errors_keep_their_traceback(tmp_path: Path, body: str):
    assert answer_to(tmp_path, body) is None


def test_a_sweep_file_that_is_wrong_prints_the_line_and_no_traceback(tmp_path: Path):
    file = tmp_path / "study.py"
    file.write_text(HEAD + "LeJEPA(lamb=1.5)\n")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: {file}:7: lamb is a convex weight in [0, 1], got 1.5; the paper starts at 0.05\n"
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


def test_help_is_no_mistake():
    done = subprocess.run([sys.executable, "-m", "sweeps", "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m sweeps NAME")
    assert "demo_lejepa" in done.stdout


def test_a_module_without_a_sweep_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delattr(importlib.import_module("sweeps.demo_lejepa"), "SWEEP")
    assert sweeps_main(["demo_lejepa"]) == 2
    assert "demo_lejepa.py: SWEEP must be Sweep(...), got None" in capsys.readouterr().err
