"""The file of python -m sweeps new runs as it is; here with fewer cells and epochs.

Run: python -m pytest tests/slow/test_new_sweep.py
"""

import runpy
from pathlib import Path

import pytest

from sweeps.__main__ import main as sweeps
from sweeps.engine import main


@pytest.mark.usefixtures("shared_ray")
def test_a_new_grid_and_a_new_search_run_and_are_listed(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results.parent)
    for name, options in (("my_grid", []), ("my_search", ["--search", "--method", "vicreg"])):
        assert sweeps(["new", name, *options]) == 0
        sweep = runpy.run_path(f"{name}.py")["SWEEP"]
        assert main(sweep, f"{name}.py", ["epochs=4", "--seeds", "0", "--limit", "1"]) == 0
    capsys.readouterr()
    assert sweeps(["list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines[1::2]] == [["my_search", "1/9"], ["my_grid", "1/3"]]
    assert lines[2::2] == [["8", "missing"], ["2", "missing"]]
