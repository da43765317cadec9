"""Bad input: a thousand sweep files with a mistake are each answered in one line, and start nothing.

Each is run the way `python sweeps/<name>.py` runs it; most in this process, for speed.
"""

import contextlib
import io
import itertools
import runpy
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest

from sweeps.engine.cli import errors
from tests.mutants import SWEEPS, Mutant, mutants, source_of

WANTED = 1000
FORKS = """
import os, runpy, sys
import sweeps.engine
for file in sys.argv[1:]:
    if (child := os.fork()) == 0:
        sys.argv = [file]
        os.dup2(os.open(file.replace(".py", ".err"), os.O_CREAT | os.O_WRONLY), 2)
        runpy.run_path(file, run_name="__main__")
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Started(Exception):
    """The sweep began to run."""


def _start(*_: object) -> None:
    raise Started


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sweep files are run: a folder of images beside them, results that must not come to be, no Ray."""
    for split, label, name in itertools.product(("train", "test"), "ab", ("0.png", "1.png")):
        (tmp_path / "images" / split / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / split / label / name).write_bytes(label.encode())  # never decoded here
    (tmp_path / "empty" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(sys.modules, "sweeps.engine.run.session", types.SimpleNamespace(Session=_start))
    return tmp_path


def run_file(file: Path, *words: str) -> tuple[int, str]:
    """The exit code of `python FILE WORDS` and what it writes to stderr, in this process."""
    told = io.StringIO()
    hook, words_before = sys.excepthook, sys.argv
    sys.argv = [str(file), *words]
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        errors.install()
        try:
            runpy.run_path(str(file), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = int(str(end.code or 0))
        except Exception as error:  # noqa: BLE001 (what sys.excepthook is for)
            line = errors.answer_line(error)
            told.write(f"error: {line}\n" if line is not None else f"Traceback: {error!r}\n")
            code = 1 if line is None else 2
        finally:
            sys.excepthook, sys.argv = hook, words_before
    return code, told.getvalue()


def fault(mutant: Mutant, file: Path) -> str:
    """What is wrong with the answer to a mutant; "" where it is as it should be."""
    file.write_text(mutant.source)
    told = fault_of(mutant, *run_file(file))
    left = {path.name for path in file.parent.iterdir()} - {"images", "empty", file.name}
    return told or (f"it left {left}" if left else "")


def fault_of(mutant: Mutant, code: int, text: str) -> str:
    """What is wrong with an exit code and what was written to stderr."""
    if code != 2 or not text.startswith("error: ") or text.count("\n") != 1 or not text.endswith("\n"):
        return f"exit code {code}, {text!r}"
    if not any(name in text for name in mutant.names):
        return f"{text!r} names none of {mutant.names}"
    return ""


@pytest.mark.usefixtures("priced")
def test_the_sweeps_that_are_mutated_are_valid(folder: Path):
    for kind, fields in SWEEPS.items():
        (folder / "study.py").write_text(source_of(f"Sweep(name='study', purpose=__doc__, {fields})"))
        assert run_file(folder / "study.py") == (1, "Traceback: Started()\n"), kind


def test_a_thousand_wrong_sweep_files_get_one_line_each_and_start_nothing(folder: Path):
    faults = {mutant: fault(mutant, folder / "study.py") for mutant in itertools.islice(mutants(0), WANTED)}
    bad = [f"{mutant.sweep}\n  -> {told}" for mutant, told in faults.items() if told]
    assert not bad, f"{len(bad)} of {WANTED} are answered badly:\n" + "\n".join(bad[:20])


def test_ten_of_them_as_processes_of_their_own(folder: Path):
    """Forked after the imports, which take seconds; the interpreter itself ends them, through sys.excepthook."""
    chosen = list(itertools.islice(mutants(1), 10))
    files = [folder / str(number) / "study.py" for number in range(len(chosen))]
    for mutant, file in zip(chosen, files, strict=True):
        file.parent.mkdir()
        file.write_text(mutant.source)
    done = subprocess.run([sys.executable, "-c", FORKS, *files], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2"] * len(chosen)
    for mutant, file in zip(chosen, files, strict=True):
        assert fault_of(mutant, 2, file.with_suffix(".err").read_text()) == ""
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("name", "where", "words"),
    [
        ("JEPA_RESULTS", "study.py", ("results", "study.py", "JEPA_RESULTS")),
        ("JEPA_RESULTS", "/proc/results", ("results", "/proc/results", "JEPA_RESULTS")),
        ("JEPA_RESULTS", "~nobody-of-that-name/x", ("JEPA_RESULTS", "~nobody-of-that-name/x")),
        ("MLFLOW_TRACKING_URI", "sqlite:///images", ("store", "sqlite file", "images")),
    ],
)
def test_places_that_cannot_hold_results_or_a_store(folder: Path, monkeypatch, name: str, where: str, words: tuple):
    (folder / "study.py").write_text(source_of("Sweep(name='study', purpose=__doc__, base=DIGITS)"))
    monkeypatch.setenv(name, where)
    code, text = run_file(folder / "study.py")
    assert (code, text.count("\n")) == (2, 1), text
    assert all(word in text for word in ("error: ", *words)), text
