"""Command lines of a sweep on a store with cells in every state: text, JSON and exit codes. Nothing trains.

Run: python -m pytest tests/integration/cli/test_launch.py
"""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from folders_of_images import folder_config, write_folder
from optuna.distributions import FloatDistribution
from stores import StoreWriter

import sweeps
from analysis.__main__ import main as analysis_main
from analysis.store.cell_list import to_tags
from analysis.tables import table
from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.__main__ import main as sweeps_main
from sweeps.engine.cli import status as status_module
from sweeps.engine.cli.main import main
from sweeps.engine.plan.describe import experiment_tags
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.cells import Cell
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.spec.table import Table
from sweeps.engine.store.reader import store_uri

pytestmark = pytest.mark.usefixtures("priced")
BASE = dataclasses.replace(DIGITS, epochs=20)
GRID = Sweep(name="study", purpose="A study.", base=BASE, grid={"method.lamb": [0.02, 0.05, 0.1]})
Command = Callable[..., str]


@pytest.fixture(autouse=True)
def file(results: Path) -> Path:
    """A sweep's file, beside its results."""
    file = results.parent / "study.py"
    file.touch()
    return file


def record(file: Path, runs: dict[str, tuple], sweep: Sweep = GRID, *words: str) -> dict[str, Cell]:
    """Write runs as a launch of the sweep leaves them: label -> (status, epoch, reason, device seconds), the last three
    optional. Returns the sweep's cells by label."""
    plan, writer = make_plan(sweep, file, words), StoreWriter(store_uri())
    cells = {cell.label: cell for cell in plan.fixed}
    experiment = writer.client.create_experiment(sweep.name, artifact_location=(file.parent / "artifacts").as_uri())
    for name, text in (experiment_tags(plan) | to_tags([cell.key for cell in plan.known])).items():
        writer.client.set_experiment_tag(experiment, name, text)
    for label, values in runs.items():
        status, epoch, reason, seconds = (*values, *("", 20, "", 0)[len(values) :])
        tags = {"cell_key": cells[label].key, "role": cells[label].role, "status": status, "epoch": str(epoch)}
        tags |= {"reason": reason, "device_seconds": str(seconds)}
        curve = [0.5 + number / 100 for number in range(1, epoch + 1)]
        writer.run(experiment, flatten(cells[label].config), {"val/probe_top1": curve}, label=label, **tags)
    return cells


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr; a launch prints one before it imports the libraries."""
    return capsys.readouterr().err.splitlines(keepends=True)[-1]


@pytest.fixture
def command(file: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The sweep's command line in this process. Returns stdout, or the last line on stderr of a command that fails."""

    def run(*words: str, code: int = 0, sweep: Sweep = GRID) -> str:
        capsys.readouterr()
        assert main(sweep, str(file), words) == code
        return last_line(capsys) if code else capsys.readouterr().out

    return run


def test_a_dry_run_shows_the_state_of_every_cell(file: Path, command: Command) -> None:
    runs = {"lamb=0.02": ("diverged", 2, "train/loss is nan"), "lamb=0.05": ("interrupted", 3)}
    cells = record(file, runs)
    lines = command("--dry-run").splitlines()
    assert lines[0] == "study: 1 of 3 cells done (1 missing, 1 interrupted, 1 diverged)"
    assert [line.split()[0] for line in lines[1:4]] == ["diverged", "interrupted", "missing"]
    assert lines[1].endswith("lamb=0.02  (train/loss is nan)")
    assert lines[2].endswith("lamb=0.05  (epoch 3 of 20)")
    (facts,) = json.loads(command("--dry-run", "--json"))["sweeps"]
    assert {name: facts[name] for name in ("total", "done", "to_run")} == {"total": 3, "done": 1, "to_run": 2}
    assert [cell["key"] for cell in facts["cells"]] == [cell.key for cell in cells.values()]


def test_a_dry_run_counts_the_files_of_images_that_are_not_decoded_and_announces_no_measurement(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_folder(file.parent / "images")
    (images / "train" / "ant" / "0.heic").write_text("x")
    base = dataclasses.replace(BASE, data=folder_config(images), global_batch=2)
    assert main(dataclasses.replace(GRID, base=base), str(file), ["--dry-run"]) == 0
    printed = capsys.readouterr()
    counts = "18 images of 2 classes (train 8, val 4, test 6); not used: 1 *.heic (train/ant/0.heic); 18 to be read"
    assert printed.out.startswith(f"data {images}: {counts} by the next launch\nstudy: 0 of 3 cells")
    assert printed.out.endswith(", not measured: a launch has to decode the images first\n")
    assert printed.err.startswith("18 images have not been read on this machine or may have changed since; a launch re")
    assert "are measured" not in printed.err


def test_status_with_and_without_a_launch(file: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Owner:
        description = "me on this machine"

    runs = {"lamb=0.02": ("running", 5, "", 100), "lamb=0.05": ("interrupted", 2, "the sweep was stopped")}
    cells = record(file, runs | {"lamb=0.1": ("finished", 20, "", 400)})
    running, stopped = (f"{cells[label].key}  {label}  epoch" for label in ("lamb=0.02", "lamb=0.05"))
    assert command("--status").splitlines() == [
        "study: 2 interrupted, 1 finished of 3 cells; no launch runs it",
        f"  interrupted {running} 5 of 20  val/probe_top1 0.550",
        f"  interrupted {stopped} 2 of 20  val/probe_top1 0.520",
        "  0.14 CPU-worker-hours used",
    ]
    monkeypatch.setattr(status_module, "holder_of", lambda _: Owner)
    (facts,) = json.loads(command("--status", "--json"))["sweeps"]
    assert facts["states"] == {"interrupted": 1, "running": 1, "finished": 1}
    assert [cell["label"] for cell in facts["interrupted"]] == ["lamb=0.05"]
    expected = {"label": "lamb=0.02", "epoch": 5, "epochs": 20, "objective": "val/probe_top1", "value": 0.55}
    assert facts["running"] == [{"key": cells["lamb=0.02"].key} | expected]
    assert facts["device_hours"] == pytest.approx(500 / 3600)
    lines = command("--status").splitlines()
    assert lines[0].endswith("of 3 cells; run by me on this machine")
    assert lines[1] == f"  running     {running} 5 of 20  val/probe_top1 0.550"
    assert lines[-1] == "  0.14 CPU-worker-hours used"


def test_failed_cells_with_one_reason_are_one_line() -> None:
    reasons = ["OutOfMemoryError", "OSError", *["OutOfMemoryError"] * 7]
    facts = {"failures": [{"key": str(key), "label": f"p={key}", "reason": why} for key, why in enumerate(reasons)]}
    assert status_module.failure_lines(facts) == [
        "  8 failed: p=0 (0), p=2 (2), p=3 (3), p=4 (4), p=5 (5), p=6 (6) and 2 more: OutOfMemoryError",
        "  1 failed: p=1 (1): OSError",
    ]


def test_status_needs_neither_data_nor_a_store(file: Path, command: Command) -> None:
    (file.parent / "results" / "mlflow.db").unlink()
    far = dataclasses.replace(BASE, data=dataclasses.replace(BASE.data, name="cifar10", path="/nowhere"))
    space = {"optim.lr": FloatDistribution(1e-4, 1e-2)}
    search = dataclasses.replace(GRID, base=far, space=space, trials=4, seeds=(0, 1))
    assert command("--status", sweep=search).startswith("study: 15 missing of 15 cells")  # 3 x (4 + 1)
    assert not (file.parent / "results" / "mlflow.db").exists()


def test_a_launch_counts_failures_of_earlier_ones_and_prints_a_reason_once(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = ("failed", 3, "no memory")
    record(file, {"lamb=0.02": failed, "lamb=0.05": failed, "lamb=0.1": ("finished",)})
    checkout = Path(sweeps.__file__).parents[1]
    for folder, browse in ((file.parent, f"{sys.executable} -m analysis.ui"), (checkout, "make ui")):
        monkeypatch.chdir(folder)
        assert main(GRID, str(file), ()) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "study: 3 of 3 cells done before, 2 failed"
        assert [line for line in lines if "no memory" in line] == ["study: 1 finished, 2 failed (no memory)"]
        assert lines[-1] == f"browse it with: {browse}"


def test_explain_gives_the_reason_of_every_state(file: Path, command: Command) -> None:
    sweep = dataclasses.replace(GRID, grid={"method.lamb": [lamb / 100 for lamb in range(1, 8)]})
    expected = {
        "lamb=0.01": ((), "missing", "never begun"),
        "lamb=0.02": (("running", 3), "interrupted", "epoch 3 of 20; its launch is gone; the next"),
        "lamb=0.03": (("interrupted", 3), "interrupted", "epoch 3 of 20; the next launch goes on"),
        "lamb=0.04": (("finished",), "finished", "all 20 epochs"),
        "lamb=0.05": (("collapsed", 2, "std is 0"), "collapsed", "std is 0"),
        "lamb=0.06": (("failed", 20, "RuntimeError: no"), "failed", "it runs again with --retry failed"),
        "lamb=0.07": (("pruned", 4), "pruned", "by early stopping"),
    }
    cells = record(file, {label: values for label, (values, *_) in expected.items() if values}, sweep)
    for label, (_, state, why) in expected.items():
        (facts,) = json.loads(command("--explain", cells[label].key[:8], "--json", sweep=sweep))["cells"]
        assert (facts["key"], facts["state"]) == (cells[label].key, state)
        assert why in facts["why"]
    assert command("--explain", label, sweep=sweep).splitlines()[1] == f"  {state}: {facts['why']}"


def test_explain_shows_config_and_checkpoints(file: Path, command: Command) -> None:
    cell = record(file, {"lamb=0.1": ("failed",)})["lamb=0.1"]
    checkpoint = file.parent / "results/checkpoints/study" / cell.key / "step-000000010.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    (facts,) = json.loads(command("--explain", "lamb=0.1", "--json"))["cells"]
    assert facts["checkpoints"] == [str(checkpoint)]
    assert facts["base"] == {"method.lamb": "0.02"}
    assert facts["config"] == {name: str(value) for name, value in flatten(cell.config).items()}
    assert facts["why"].partition("traceback in ")[2].partition(")")[0].endswith("/artifacts/traceback.txt")
    starred = [line for line in command("--explain", "lamb=0.1").splitlines() if line.startswith("  *")]
    assert [line.split() for line in starred] == [["*", "method.lamb", "0.1", "(base:", "0.02)"]]


def test_explain_shows_every_seed_of_a_label_without_seed(file: Path, command: Command) -> None:
    seeds = dataclasses.replace(GRID, seeds=(0, 1))
    record(file, {"lamb=0.05 seed=0": ("finished",), "lamb=0.05 seed=1": ("failed", 3, "no memory")}, seeds)
    facts = json.loads(command("--explain", "lamb=0.05", "--json", sweep=seeds))["cells"]
    assert [(cell["label"], cell["state"]) for cell in facts] == [
        ("lamb=0.05 seed=0", "finished"),
        ("lamb=0.05 seed=1", "failed"),
    ]
    text = command("--explain", "lamb=0.05", sweep=seeds)
    assert [line for line in text.splitlines() if line.startswith("study: ")] == [
        f"study: {cell['label']} ({cell['key']})" for cell in facts
    ]
    alone = dataclasses.replace(GRID, grid={}, seeds=(4, 5))
    assert [cell["label"] for cell in json.loads(command("--explain", "base", "--json", sweep=alone))["cells"]] == [
        "seed=4",
        "seed=5",
    ]


def test_readers_name_their_store_on_stderr_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(file, {"lamb=0.05": ("finished",)})
    for words in (["--status"], ["--dry-run"], ["--explain", "lamb=0.05"]):
        for form in ([], ["--json"]):
            assert main(GRID, str(file), [*words, *form]) == 0
            printed = capsys.readouterr()
            assert printed.err.splitlines()[-1] == f"store: {store_uri()}"
            assert not form or json.loads(printed.out)
    for words in (
        ["study"],
        ["study", "--format", "csv"],
        ["report", "study"],
        ["figure", "curves", "--sweep", "study"],
    ):
        output = ["--output", str(file.parent)] * (words[0] in ("report", "figure"))
        assert analysis_main([*words, *output]) == 0
        printed = capsys.readouterr()
        assert (printed.err, "sqlite:" in printed.out) == (f"store: {store_uri()}\n", False)


LAMBS = {"method.lamb": [0.05, 0.1, 0.2, 0.3]}
EDITED = "  file or command line changed since: 2 new, 1 dropped"


def test_after_an_edit_status_and_table_show_the_last_launch_and_say_so(
    file: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("A = 1")
    record(file, {"lamb=0.02": ("finished",), "lamb=0.05": ("failed",)})
    before, table = command("--status"), analysis_output(capsys)
    assert "edited" not in before
    edited = dataclasses.replace(GRID, grid=LAMBS)
    file.write_text('"""Another docstring."""\nA = 1  # and a comment')
    assert analysis_output(capsys) == table
    file.write_text("A = 2")
    assert command("--status", sweep=edited).splitlines() == [*before.splitlines(), EDITED], "the list of the launch"
    (facts,) = json.loads(command("--status", "--json", sweep=edited))["sweeps"]
    assert facts["edited"] == {"new": 2, "dropped": 1}
    assert (facts["total"], facts["states"]) == (3, {"missing": 1, "finished": 1, "failed": 1})
    assert command("--dry-run", sweep=edited).splitlines()[-1] == EDITED
    (facts,) = json.loads(command("--dry-run", "--json", sweep=edited))["sweeps"]
    assert facts["edited"] == {"new": 2, "dropped": 1}
    assert analysis_main(["study"]) == 0
    printed = capsys.readouterr()
    assert printed.out == table[0], "the table of the launch"
    assert printed.err.splitlines() == [
        f"{file}: edited since the launch of which this table shows the cells; see its --status",
        f"store: {store_uri()}",
    ]


def analysis_output(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Output and errors of the sweep's table."""
    capsys.readouterr()
    assert analysis_main(["study"]) == 0
    return capsys.readouterr()


def test_status_knows_edits_without_the_data(file: Path, command: Command) -> None:
    images = write_folder(file.parent / "images")
    base = dataclasses.replace(BASE, data=folder_config(images), global_batch=2)
    sweep = dataclasses.replace(GRID, base=base)
    record(file, {"lamb=0.02": ("finished",)}, sweep)
    shutil.rmtree(images)
    assert "edited" not in command("--status", sweep=sweep)
    assert command("--status", sweep=dataclasses.replace(sweep, grid=LAMBS)).splitlines()[-1] == EDITED
    axis = dataclasses.replace(sweep, base=BASE, grid={"data.name": ["digits"], **GRID.grid})
    assert command("--status", sweep=axis).endswith("  file or command line changed since: 3 new, 3 dropped\n")


def test_explain_refuses_a_word_that_fits_no_cell_or_several(file: Path, command: Command) -> None:
    assert "fits no cell; did you mean 'lamb=0.0" in command("--explain", "lamb=0.03", code=2)
    several = dataclasses.replace(GRID, grid={"epochs": [*range(1, 18)]})
    keys = [cell.key[0] for cell in make_plan(several, file).fixed]
    twice = next(first for first in keys if keys.count(first) > 1)  # 17 keys, 16 digits
    assert f"fits {keys.count(twice)} cells" in command("--explain", twice, sweep=several, code=2)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        (
            "JEPA_RESULTS",
            "/proc/nowhere",
            "No such file or directory: '/proc/nowhere'; set JEPA_RESULTS to a",
        ),
        ("JEPA_RESULTS", "{file}", "JEPA_RESULTS"),
        ("JEPA_RESULTS", "{file}/a\nb", "study.py/a\\nb"),
        ("MLFLOW_TRACKING_URI", "sqlite:///{file.parent}", "is no MLflow store but a folder"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "the store http://127.0.0.1:9 cannot be used"),
    ],
)
def test_results_and_stores_that_cannot_be_used_are_one_line(
    name: str, value: str, part: str, file: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value.format(file=file))
    error = command(code=2)
    assert error.startswith("error: ")
    assert part in error


def test_other_bad_input_is_one_line(file: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("statsu", code=2).startswith("error: 'statsu' is no option and no assignment")
    assert main(GRID, str(file.with_name("other.py")), []) == 2
    assert last_line(capsys).startswith("error: name must be the stem of the sweep's file, got 'study' in other")
    assert sweeps_main(["demo_rectified_lpjepa", "--explain", "demo_lejepa"]) == 2
    assert last_line(capsys).startswith("error: --explain demo_lejepa fits no cell")


def test_the_table_that_a_sweep_defines_is_recorded_and_read_without_its_file(file: Path, command: Command) -> None:
    chosen = Table(metrics=["val/probe_top1"], labels={"method.lamb": "weight", "val/probe_top1": "probe"})
    record(
        file,
        dict.fromkeys(("lamb=0.02", "lamb=0.05", "lamb=0.1"), ("finished",)),
        dataclasses.replace(GRID, table=chosen),
    )
    assert table("study").splitlines()[2] == "| weight |   probe ↑ |"
    assert "my own" not in table("study")
    file.with_name("study_table.py").write_text(
        "from analysis.table.pivot import PivotTable as P\n\nTITLE, TABLE = 'my own', P(rows={'method.lamb': 'w'})\n"
    )
    assert "**my own**" in command(sweep=GRID)


def test_a_wrong_table_file_is_refused_before_anything_starts(file: Path, command: Command) -> None:
    file.with_name("study_table.py").write_text("TITEL = 1\n")
    assert "study_table.py must define TITLE, and TABLE or build(runs); docs/extending.md" in command(code=2)


def test_a_table_file_is_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a", "a_table", "b_table"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(sweeps, "__path__", [str(tmp_path)])
    assert sweeps_main(["c"]) == 2
    assert "; choose one of a, b_table, study\n" in capsys.readouterr().err


def test_an_override_gives_other_cells_and_is_named_by_dry_run_status_and_table(file: Path, command: Command) -> None:
    named = "base with epochs=5, by the command line"
    (facts,) = json.loads(command("--dry-run", "epochs=5", "--json"))["sweeps"]
    assert (facts["overrides"], facts["to_run"]) == ({"epochs": "5"}, 3)
    assert f"  {named}" in command("--dry-run", "epochs=5").splitlines()
    assert "command line" not in command("--dry-run", "data.download=true"), "it changes no cell"
    cells = record(file, {"lamb=0.05": ("finished", 5)}, GRID, "epochs=5")
    assert [cell["key"] for cell in facts["cells"]] == [cell.key for cell in cells.values()]
    lines = command("--status", "epochs=5").splitlines()
    assert (f"  {named}" in lines, "changed since" in lines[-1]) == (True, False)
    (facts,) = json.loads(command("--status", "--json"))["sweeps"]
    assert (facts["overrides"], facts["edited"]) == ({"epochs": "5"}, {"new": 3, "dropped": 3})
    assert f"study: {named} of the launch" in table("study")
    assert experiment_tags(make_plan(GRID, file))["sweep.overrides"] == "{}", "the next launch without it"
    assert command("epochs=5", "--explain", "lamb=0.05").splitlines()[1].endswith(", all 5 epochs")


def test_seeds_of_the_command_line_replace_those_of_the_file(command: Command) -> None:
    assert len(json.loads(command("--dry-run", "--seeds", "0,3-4", "--json"))["sweeps"][0]["cells"]) == 9
    space = {"optim.lr": FloatDistribution(1e-4, 1e-2)}
    goals = {"val/probe_top1": "max", "val/linear_top1": "max"}
    pareto = dataclasses.replace(GRID, grid={}, space=space, trials=4, objective=goals)
    assert command("--dry-run", "--seeds", "3", sweep=pareto).startswith("study: 0 of 4 cells done")
    assert command("--dry-run", "--seeds", "0-1", code=2, sweep=pareto).startswith(
        "error: seeds of a search for several objectives, which has no single winner, must be as many as "
    )
    several = dataclasses.replace(GRID, space=space, trials=4, seeds=(0, 1), seeds_per_trial=2)
    error = command("--dry-run", "--seeds", "0", code=2, sweep=several)
    assert error.startswith("error: seeds_per_trial must be at most the number of seeds, got 2 with seeds=(0,); give 2")


def test_only_and_limit_choose_what_a_dry_run_prices_and_the_list_stays(file: Path, command: Command) -> None:
    record(file, {"lamb=0.02": ("finished",)})
    lines = command("--dry-run", "--only", "lamb=0.1").splitlines()
    assert lines[0] == "study: 1 of 3 cells done (2 missing, 1 finished)"
    assert [line.endswith("(not in this launch)") for line in lines[1:4]] == [False, True, False]
    assert lines[4].startswith("price of 1 cells, 1 at once")
    (facts,) = json.loads(command("--dry-run", "--limit", "1", "--json"))["sweeps"]
    assert (facts["total"], facts["to_run"], [cell["due"] for cell in facts["cells"]]) == (3, 1, [False, True, False])


def test_a_launch_of_chosen_cells_that_have_results_is_complete(
    file: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    record(file, {"lamb=0.02": ("finished",), "lamb=0.05": ("failed",)})
    out = command("--only", "lamb=0.02")
    assert "study: 2 of 3 cells done before, 1 failed; 0 run now\n" in out
    assert "  1 cells have no result yet; the same command without --only runs them" in out
    assert command("--status").startswith("study: 1 missing, 1 finished, 1 failed of 3 cells"), "the list stays"
    assert main(GRID, str(file), ["--evaluate", "--only", "lamb=0.02", "probe.protocols=knn"]) == 1
    assert "study: 1 finished cells to evaluate" in capsys.readouterr().out
    assert main(GRID, str(file), ["--evaluate", "--only", "lamb=0.1"]) == 0
    assert "study: 0 finished cells to evaluate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["epoch=5"], "epoch is not a field of the config; did you mean 'epochs'?"),
        (["--status", "epochs=x"], "epochs must be a whole number, got 'x'"),
        (["--watch", "epochs=x"], "epochs must be a whole number, got 'x'"),
        (
            ["--dry-run", "method.lamb=0.5"],
            "method.lamb varies in study, so the base cannot set it, got method.lamb=0.5",
        ),
        (["--only", "lamb=0.06"], "--only lamb=0.06 fits no cell; did you mean '0.05'?"),
        (["--evaluate", "--only", "lam=0.05"], "--only lam=0.05: lam does not vary in study; did you mean 'lamb'?"),
        (["--seeds", "1,1"], "seeds must list values, each once, got (1, 1); keep one of each"),
        (["global_batch=100000"], "global_batch must not exceed the"),
    ],
)
def test_wrong_launch_options_are_one_line_before_anything_starts(
    words: list[str], error: str, command: Command
) -> None:
    assert command(*words, code=2).startswith(f"error: {error}")


def test_watch_ends_when_every_cell_has_ended(file: Path, command: Command) -> None:
    record(file, dict.fromkeys(("lamb=0.02", "lamb=0.05", "lamb=0.1"), ("finished",)))
    assert command("--watch") == command("--status")
