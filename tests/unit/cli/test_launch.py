"""The command line: its words, what it tells of a store that the ledger wrote, and its exit codes. Nothing trains."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from optuna.distributions import FloatDistribution

from jepa_train.base.errors import ConfigError
from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.__main__ import main as sweeps_main
from sweeps.engine.cli import status as status_module
from sweeps.engine.cli.args import Options, read_words
from sweeps.engine.cli.main import main
from sweeps.engine.cli.status import status
from sweeps.engine.plan.describe import open_ledger
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run.eta import duration
from sweeps.engine.spec.cells import Cell
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import store_uri

pytestmark = pytest.mark.usefixtures("priced")
BASE = dataclasses.replace(DIGITS, epochs=20)
GRID = Sweep(name="study", purpose="A study.", base=BASE, grid={"method.lamb": [0.02, 0.05, 0.1]})


@pytest.fixture(autouse=True)
def file(results: Path) -> Path:
    """A sweep's file, beside its results."""
    file = results.parent / "study.py"
    file.touch()
    return file


def record(sweep: Sweep, file: Path, cell: Cell, status: str, *, epoch: int = 20, reason: str = "") -> None:
    """A cell that came so far; "running" is what a launch leaves while it lives, and when it is killed."""
    ledger = open_ledger(make_plan(sweep, file), note=print, publish=str)
    ledger.start(cell, devices=1.0)
    ledger.log(cell.key, {"epoch": float(epoch), "val/probe_top1": 0.5 + epoch / 100})
    if status != "running":
        ledger.end(cell.key, status, reason, "Traceback ...")
    assert ledger.close() == ""


def cells(file: Path, sweep: Sweep = GRID) -> tuple[Cell, ...]:
    """The known cells of the sweep."""
    return make_plan(sweep, file).fixed


def told(capsys: pytest.CaptureFixture[str], file: Path, *words: str, code: int = 0, sweep: Sweep = GRID) -> str:
    """What the command prints."""
    capsys.readouterr()
    assert main(sweep, str(file), words) == code
    return capsys.readouterr().out


def test_words_become_options():
    assert read_words(["a", "--retry", "failed", "data.path=/d", "b", "--max-gpu-hours=2.5", "--json"]) == Options(
        names=("a", "b"), places=("data.path=/d",), retry=frozenset({"failed"}), max_gpu_hours=2.5, json=True
    )
    assert read_words(["--explain", "lamb=0.1 seed=0"]).explain == "lamb=0.1 seed=0"
    joined = read_words(["--json", "--explain", "lamb=0.1", "seed=0", "data.path=DIR"])  # as ray submit hands it on
    assert (joined.explain, joined.places) == ("lamb=0.1 seed=0", ("data.path=DIR",))
    named = read_words(["--explain", "lamb=0.1", "seed=0", "demo_lejepa"], names=["demo_lejepa"])
    assert (named.explain, named.names) == ("lamb=0.1 seed=0", ("demo_lejepa",))


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--dryrun"], "--dryrun is not an option; did you mean '--dry-run'?"),
        (["--dry"], "--dry is not an option"),
        (["--explain"], "--explain needs a value"),
        (["--retry", "diverged"], "--retry: invalid choice: 'diverged'"),
        (["--max-gpu-hours", "much"], "--max-gpu-hours: invalid float value: 'much'"),
        (["--max-gpu-hours", "0"], "--max-gpu-hours must be positive, got 0"),
        (["--max-gpu-hours", "nan"], "--max-gpu-hours must be positive, got nan"),
        (["--status", "--dry-run"], "one of --dry-run, --status, --explain, --evaluate goes at a time"),
    ],
)
def test_wrong_words_are_answered_in_one_line(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ConfigError) as refused:
        read_words(words)
    assert str(refused.value).startswith(answer)
    assert main(GRID, "study.py", words) == sweeps_main(["demo_lejepa", *words]) == 2
    assert capsys.readouterr().err == f"error: {refused.value}\n" * 2


def test_a_sweep_file_takes_no_names(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(GRID, str(file), ["statsu"]) == 2
    assert capsys.readouterr().err.startswith("error: 'statsu' is no option and no assignment")


def test_names_of_sweeps_are_checked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def error(*words: str) -> str:
        assert sweeps_main([*words]) == 2
        return capsys.readouterr().err

    assert error("demo_lejpa").startswith("error: 'demo_lejpa' is no sweep; did you mean 'demo_lejepa'?")
    assert error("demo_lejepa", "demo_lejepa") == "error: sweep demo_lejepa is given twice; name it once\n"
    monkeypatch.delattr(importlib.import_module("sweeps.demo_lejepa"), "SWEEP")
    assert "demo_lejepa.py: SWEEP must be Sweep(...), got None" in error("demo_lejepa")


def test_a_config_error_of_a_sweep_file_is_one_line_by_name_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Other errors of the file are raised."""
    monkeypatch.setattr("sweeps.__path__", [str(tmp_path)])
    for name, body in (("wrong_base", "Sweep(name='wrong_base', purpose='', base=1)"), ("wrong_name", "Swep()")):
        (tmp_path / f"{name}.py").write_text(f"from sweeps.engine import Sweep\nSWEEP = {body}\n")
    assert sweeps_main(["wrong_base"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: base must")
    assert error.count("\n") == 1
    with pytest.raises(NameError, match="Swep"):
        sweeps_main(["wrong_name"])


def test_a_sweep_named_otherwise_than_its_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(GRID, str(tmp_path / "other.py"), []) == 2
    assert capsys.readouterr().err.startswith("error: name must be the stem of the sweep's file, got 'study' in other")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("JEPA_RESULTS", "{file}", ("study.py", "JEPA_RESULTS")),
        ("JEPA_RESULTS", "~nobody-of-that-name/x", ("JEPA_RESULTS", "~nobody-of-that-name/x")),
        ("MLFLOW_TRACKING_URI", "sqlite:///{file.parent}", ("store", "sqlite file")),
    ],
)
def test_places_that_cannot_hold_results_or_a_store_are_refused(
    name: str,
    value: str,
    words: tuple[str, ...],
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(name, value.format(file=file))
    assert main(GRID, str(file), []) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in ("error: ", *words)), error


def test_the_value_of_an_option_is_no_sweep(capsys: pytest.CaptureFixture[str]):
    assert sweeps_main(["demo_rectified_lpjepa", "--explain", "demo_lejepa"]) == 2
    assert capsys.readouterr().err.startswith("error: --explain demo_lejepa fits no cell")


def test_a_dry_run_shows_the_state_of_every_cell(file: Path, capsys: pytest.CaptureFixture[str]):
    first, second, _ = cells(file)
    record(GRID, file, first, "diverged", epoch=2, reason="train/loss is nan")
    record(GRID, file, second, "interrupted", epoch=3)
    lines = told(capsys, file, "--dry-run").splitlines()
    assert lines[0] == "study: 1 of 3 cells done (2 missing, 1 diverged)"
    assert [line.split()[0] for line in lines[1:]] == ["diverged", "missing", "missing", "price", "2", "in"]
    assert lines[1].endswith("lamb=0.02  (train/loss is nan)")
    assert lines[2].endswith("lamb=0.05  (begun, epoch 3 of 20)")
    facts = json.loads(told(capsys, file, "--dry-run", "--json"))["sweeps"][0]
    assert {name: facts[name] for name in ("total", "done", "to_run")} == {"total": 3, "done": 1, "to_run": 2}
    assert [cell["key"] for cell in facts["cells"]] == [cell.key for cell in cells(file)]


def test_status_of_a_sweep_that_runs(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    first, second, _ = cells(file)
    record(GRID, file, first, "finished")
    record(GRID, file, second, "running", epoch=5)
    entries = {entry.key: entry.run_id for entry in make_plan(GRID, file).entries.values()}
    client = MlflowClient(store_uri())
    client.set_tag(entries[first.key], "device_seconds", "400")
    client.set_tag(entries[second.key], "device_seconds", "100")

    class Holder:
        description = "me on this machine"

    monkeypatch.setattr(status_module, "holder_of", lambda _: Holder)
    facts = status(GRID)
    assert facts["states"] == {"missing": 1, "running": 1, "finished": 1}
    assert facts["running"][0] | {"key": ""} == {
        "key": "", "label": "lamb=0.05", "epoch": 5, "epochs": 20, "objective": "val/probe_top1", "value": 0.55
    }  # fmt: skip
    assert facts["device_hours"] == pytest.approx(500 / 3600)
    assert facts["seconds_left"] == pytest.approx(400 * 1.75)  # 500 s for 1.25 cells; 1.75 are left, on one lane
    text = told(capsys, file, "--status")
    assert text.splitlines()[0].endswith("of 3 cells; run by me on this machine")
    assert "epoch 5 of 20  val/probe_top1 0.550" in text
    assert text.endswith("0.14 device-hours used, 12 min left\n")


def test_status_of_a_sweep_whose_launch_died(file: Path, capsys: pytest.CaptureFixture[str]):
    first, second, _ = cells(file)
    record(GRID, file, first, "running", epoch=5)
    record(GRID, file, second, "failed", reason="OutOfMemoryError: 80 GiB")
    text = told(capsys, file, "--status")
    assert text.startswith("study: 2 missing, 1 failed of 3 cells; no launch runs it\n")
    assert f"failed      {second.key}  lamb=0.05: OutOfMemoryError: 80 GiB" in text
    assert json.loads(told(capsys, file, "--status", "--json"))["sweeps"][0]["seconds_left"] is None


def test_status_needs_neither_data_nor_a_store(file: Path, capsys: pytest.CaptureFixture[str]):
    (file.parent / "results" / "mlflow.db").unlink()
    far = dataclasses.replace(BASE, data=dataclasses.replace(BASE.data, name="cifar10", path="/nowhere"))
    space = {"optim.lr": FloatDistribution(1e-4, 1e-2)}
    search = dataclasses.replace(GRID, base=far, space=space, trials=4, seeds=(0, 1))
    assert told(capsys, file, "--status", sweep=search).startswith("study: 15 missing of 15 cells")  # 3 x (4 + 1)
    assert not (file.parent / "results" / "mlflow.db").exists()


def test_status_counts_what_the_last_launch_asked_for(file: Path):
    first, second, third = cells(file)
    for cell in (first, second, third):
        record(GRID, file, cell, "finished")
    smaller = dataclasses.replace(GRID, grid={"method.lamb": [0.02]}, references=({"method.lamb": 0.1},))
    open_ledger(make_plan(smaller, file), note=print, publish=str).close()
    assert status(smaller)["states"] == {"finished": 2}
    longer = dataclasses.replace(GRID, base=dataclasses.replace(BASE, epochs=30))
    open_ledger(make_plan(longer, file), note=print, publish=str).close()
    assert status(longer)["states"] == {"missing": 3}


@pytest.mark.parametrize(
    ("recorded", "state", "why"),
    [
        ({}, "missing", "never begun"),
        ({"status": "running", "epoch": 3}, "missing", "begun, epoch 3 of 20, by a launch that is gone"),
        (
            {"status": "interrupted", "epoch": 3},
            "missing",
            "begun, epoch 3 of 20, interrupted; the next launch goes on",
        ),
        ({"status": "finished"}, "finished", "all 20 epochs"),
        ({"status": "collapsed", "epoch": 2, "reason": "std is 0"}, "collapsed", "std is 0"),
        ({"status": "failed", "reason": "RuntimeError: no"}, "failed", "runs again with --retry failed"),
        ({"status": "pruned", "epoch": 4}, "pruned", "by early stopping"),
    ],
)
def test_explain_says_why(recorded: dict, state: str, why: str, file: Path, capsys: pytest.CaptureFixture[str]):
    cell = cells(file)[1]
    if recorded:
        record(GRID, file, cell, **recorded)
    (facts,) = json.loads(told(capsys, file, "--explain", cell.key[:6], "--json"))["cells"]
    assert (facts["key"], facts["state"]) == (cell.key, state)
    assert why in facts["why"]
    text = told(capsys, file, "--explain", "lamb=0.05")
    assert text.splitlines()[1] == f"  {state}: {facts['why']}"


def test_explain_shows_config_checkpoints_and_traceback(file: Path, capsys: pytest.CaptureFixture[str]):
    cell = cells(file)[2]
    record(GRID, file, cell, "failed", reason="RuntimeError: no")
    checkpoint = file.parent / "results/checkpoints/study" / cell.key / "step-000000010.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    (facts,) = json.loads(told(capsys, file, "--explain", "lamb=0.1", "--json"))["cells"]
    assert facts["checkpoints"] == [str(checkpoint)]
    assert facts["base"] == {"method.lamb": "0.02"}
    assert facts["config"] == {name: str(value) for name, value in flatten(cell.config).items()}
    assert facts["code"].keys() >= {"commit", "torch", "on"}
    place = facts["why"].partition("traceback in ")[2].partition(")")[0]
    assert Path(place).read_text() == "Traceback ..."
    starred = [line for line in told(capsys, file, "--explain", "lamb=0.1").splitlines() if line.startswith("  *")]
    assert [line.split() for line in starred] == [["*", "method.lamb", "0.1", "(base:", "0.02)"]]


def test_explain_knows_cells_that_have_left_the_file(file: Path, capsys: pytest.CaptureFixture[str]):
    record(GRID, file, cells(file)[2], "finished")
    smaller = dataclasses.replace(GRID, grid={"method.lamb": [0.02, 0.05]})
    text = told(capsys, file, "--explain", "lamb=0.1", sweep=smaller)
    assert "does not ask for it any more" in text


def test_explain_refuses_what_fits_no_cell_or_several(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(GRID, str(file), ["--explain", "lamb=0.03"]) == 2
    assert "fits no cell; did you mean 'lamb=0.0" in capsys.readouterr().err
    several = dataclasses.replace(GRID, grid={"epochs": [*range(1, 18)]})
    keys = [cell.key[0] for cell in cells(file, several)]
    twice = next(first for first in keys if keys.count(first) > 1)  # 17 keys, 16 digits
    assert main(several, str(file), ["--explain", twice]) == 2
    assert f"fits {keys.count(twice)} cells" in capsys.readouterr().err


def test_nothing_left_to_run_is_a_summary_and_exit_code_0(file: Path, capsys: pytest.CaptureFixture[str]):
    for cell in cells(file):
        record(GRID, file, cell, "finished")
    out = told(capsys, file)
    assert "study: 3 of 3 cells done before" in out
    assert "study: 3 finished of 3 cells; 0 ended in this launch" in out
    assert main(GRID, str(file), ["--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["sweeps"][0]["complete"] is True
    assert "cells done before" in printed.err


def test_a_store_that_cannot_be_reached_is_exit_code_2(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(GRID, str(file), ["--status"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the store http://127.0.0.1:9 cannot be used")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (1, "5 s"), (59, "60 s"), (89, "1 min"), (3599, "1 h 00 min"), (11100, "3 h 05 min")],
)
def test_times_are_rounded(seconds: float, text: str):
    assert duration(seconds) == text
