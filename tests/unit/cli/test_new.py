"""python -m sweeps new: the file that it writes for each method and dataset, and the names that it refuses.

Run: python -m pytest tests/unit/cli/test_new.py
"""

import itertools
import runpy
from pathlib import Path

import pytest

from jepa_train.base.errors import ConfigError
from jepa_train.config.names import DATASET_NAMES
from jepa_train.methods import METHODS
from sweeps.__main__ import main
from sweeps.engine.cli.new import new
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.sweep import Sweep


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the checkout, with an empty results folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))


def written(name: str, *options: str) -> Sweep:
    """The sweep in the file that the command writes."""
    assert new([name, *options]) == 0
    return runpy.run_path(f"{name}.py")["SWEEP"]


@pytest.mark.parametrize(("method", "search"), [*itertools.product(METHODS, ([], ["--search"]))])
def test_the_file_is_a_sweep_for_every_dataset(
    method: str, search: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for data in DATASET_NAMES:
        sweep = written(f"my_{data}", "--method", method, "--data", data, *search)
        assert (sweep.base.method.name, sweep.base.data.name, sweep.name) == (method, data, f"my_{data}")
        text = Path(f"my_{data}.py").read_text()
        assert len(text.splitlines()) <= 40
        assert max(map(len, text.splitlines())) <= 120
        in_folder = not data.startswith("digits")
        assert (" data.path=DIR --dry-run" in text) == ('.data, path="DIR"' in text) == in_folder
        assert " data.path=DIR --dry-run\n" in capsys.readouterr().out or not in_folder
        if data == "digits":
            plan = make_plan(sweep, Path(f"my_{data}.py"))
            assert plan.todo == plan.total >= 9


def test_in_the_checkout_the_file_is_beside_the_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweeps"
    folder.mkdir()
    monkeypatch.setattr("sweeps.__path__", [str(folder)])
    assert main(["new", "my_grid"]) == 0
    file = Path("sweeps", "my_grid.py")
    assert capsys.readouterr().out == f"wrote {file}; its cells: python {file} --dry-run\n"
    assert "SWEEP = Sweep(" in file.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine"], r"^mine.py exists; choose another name, or edit the file$"),
        (["My"], r"^NAME must be lower-case letters, digits and _, .*, got 'My'; try my_grid$"),
        (["../up"], r"got '../up'; try my_grid$"),
        (["lambda"], r"no keyword of Python, got 'lambda'; try my_grid$"),
        (["demo_lejepa"], r"^NAME must be new, got 'demo_lejepa', a sweep; try my_demo_lejepa$"),
        (["list"], r"got 'list', a command of python -m sweeps; try my_list$"),
        (["random"], r"^NAME must be new, got 'random', a module of Python; try my_random$"),
        (["torch"], r"got 'torch', a module of Python; try my_torch$"),
        (["a", "--method", "lejepq"], r"^--method must be a known one, got 'lejepq'; did you mean 'lejepa'\?$"),
        (["a", "--data", "cifar"], r"^--data must be a known one, got 'cifar'; did you mean 'cifar10'\?$"),
        ([], r"^new: the following arguments are required: NAME; write python -m sweeps new NAME "),
        (["a", "b"], r"^new: unrecognized arguments: b; "),
        (["a" * 300], r"cannot be written \(File name too long\)"),
    ],
)
def test_what_cannot_be_written_is_one_line(words: list[str], message: str) -> None:
    Path("mine.py").write_text("precious")
    with pytest.raises(ConfigError, match=message):
        new(words)
    assert {path.name: path.read_text() for path in Path().glob("*.py")} == {"mine.py": "precious"}
