"""Commands of README.md, CONTRIBUTING.md and docs/: every `$` line is a row of a table below, and is run.

Rows call the command lines in this process, in a folder like the project's whose store holds finished cells, so that
only single trainings take time. Other tables name the checks, or the test files that run a whole page.

Run: python -m pytest tests/slow/test_readme.py
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from launches import record

import sweeps
from analysis.tables import table
from jepa_train.base.scale_names import Scale
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.model.network import build_network
from jepa_train.storage.storage import checkpoints_dir
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.cells import make_cell
from sweeps.engine.spec.scale import at_scale

ROOT = Path(__file__).parents[2]
PAGES = {file.relative_to(ROOT).as_posix(): file.read_text() for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}
README, WEIGHTS = PAGES["README.md"], PAGES["docs/weights.md"]
ELSEWHERE = {
    "docs/team.md": "tests/cluster/test_team_store.py",
    "docs/extending.md": "tests/slow/test_extending.py",
    "docs/unlabelled.md": "tests/slow/test_unlabelled.py",
}
COMMANDS = {
    command
    for name, text in PAGES.items()
    if name not in ELSEWHERE
    for command in re.findall(r"^\$ (.+)$", text, flags=re.MULTILINE)
}


class Row(NamedTuple):
    """A command without `.venv/bin/python`, a pattern of its output, its exit code, and words that keep it short."""

    command: str
    pattern: str
    code: int = 0
    added: str = ""


MINI, DEMO = "lejepa_lambda_views --scale mini", "sweeps/demo_rectified_lpjepa.py"
ROWS = [
    Row("-m sweeps demo_lejepa demo_rectified_lpjepa demo_two_workers", r"(?s)9 of 9 cells.*random init.*2 workers"),
    Row("sweeps/my_lambda.py", r"\| 0.01 +\| +(\*\*)?5\d.\d\d ± \d.\d\d"),
    Row("sweeps/my_lambda.py --dry-run", r"9 of 9 cells done"),
    Row("sweeps/my_lambda.py --status", r"9 finished of 9 cells"),
    Row('sweeps/my_lambda.py --explain "lamb=0.05 seed=1"', r"\* seed +1"),
    Row("sweeps/my_search.py", r"(?m)^\| 1 .* ± "),
    Row("-m sweeps doctor my_lambda", r"(?m)^(ok|warning) +my_lambda "),
    Row("-m analysis my_lambda --format latex", r"\\toprule"),
    Row("-m sweeps lejepa_lambda_views rectified_sparsity --scale mini", r"(?s)45 finished of 45.*45 finished of 45"),
    Row("-m sweeps lejepa_batch lejepa_sigreg --scale mini", "lejepa_sigreg_mini", added="--status"),
    Row(f"-m analysis {MINI} --against-paper", "not comparable"),
    Row(f"-m analysis {MINI} --output results/tables", "lejepa_lambda_views-mini.provenance.json"),
    Row("-m analysis figure lambda_views --scale mini", r"lambda_views-.*\.png"),
    Row(f"-m analysis report {MINI}", r"\.html"),
    Row(f"-m analysis export {MINI}", r"runs\.parquet"),
    Row("-m analysis", r"demo_rectified_lpjepa +in store"),
    Row("-m analysis optuna demo_lejepa", r"open it with: optuna-dashboard .*demo_lejepa\.journal"),
    Row("-m analysis export demo_lejepa --tensorboard", r"open it with: tensorboard --logdir .*demo_lejepa"),
    Row("-m sweeps new my_temperature --method simclr", r"wrote sweeps/my_temperature\.py"),
    Row("-m sweeps new my_tuning --method simclr --search", r"wrote sweeps/my_tuning\.py"),
    Row("-m sweeps list", r"(?m)^demo_rectified_lpjepa +9/9 .* probe_top1$"),
    Row("-m analysis demo_rectified_lpjepa --format latex", r"\\toprule"),
    Row("-m analysis lejepa_lambda_views --scale small --store docs/results/store", "44 finished, 1 collapsed"),
    Row(
        "-m analysis lejepa_lambda_views --scale small --metrics test/linear_top1 --store docs/results/store",
        r"(?s)linear top-1.*44 finished, 1 collapsed",
    ),
    Row(DEMO, "62.5"),
    Row(f"{DEMO} --dry-run", "9 of 9 cells done"),
    Row(f"{DEMO} --status", "9 finished of 9 cells; no launch runs it"),
    Row(f'{DEMO} --explain "p=0.5 mu=-1"', r"\* method.mu"),
    Row(f"{DEMO} --retry failed", "9 finished of 9 cells; 0 ended in this launch"),
    Row(f"{DEMO} --watch", "9 finished of 9 cells; no launch runs it"),
    Row(f"{DEMO} epochs=10 --seeds 0-2", "changed since: 27 new, 9 dropped", added="--status"),
    Row(f'{DEMO} --only "p=0.5,1 mu=-1" --limit 1', "9 of 9 cells done before"),
    Row(f"{DEMO} --evaluate probe.protocols=sgd", "no final.pt|checkpoint", code=1),
    Row("-m sweeps doctor demo_rectified_lpjepa", r"(?m)^(ok|warning) +demo_rectified_lpjepa "),
    Row("-m jepa_train method=lejepa data.name=digits epochs=5 method.lamb=0.02", r"linear_top1 .*0\.[89]"),
    Row("-m jepa_train epochs=3 --checkpoints results/run1", "finished at epoch 3"),
    Row("-m jepa_train --evaluate results/run1/final.pt probe.protocols=kshot,sgd", r"(?s)sgd_top1.*shot10_top1"),
    Row("-m jepa_train epochs=2 --checkpoints results/first", "finished at epoch 2"),
    Row(
        "-m jepa_train epochs=2 model.weights=results/first/final.pt --checkpoints results/second",
        "finished at epoch 2",
    ),
    Row("sweeps/my_weights.py", "4 missing of 4 cells", added="--status"),
    Row("-m sweeps best my_search", "my_search: .*, best of 9 settings by val/probe_top1"),
    Row("-m sweeps best my_search --export exports/best", "exported seed 0; exports/best/README.md"),
    Row("-m jepa_train export results/first exports/first", "exports/first/model.safetensors"),
    Row("-m jepa_train export results/second/final.pt exports/second --projector", "projector.safetensors"),
    Row("sweeps/colour_folder.py data.path=~/data/cifar10", "2 missing of 2 cells", added="--status"),
    Row(
        "-m sweeps lejepa_lambda_views rectified_sparsity rectified_targets --scale small data.path=~/data/cifar10",
        "lejepa_lambda_views_small",
        added="--status",
    ),
    Row("-m sweeps lejepa_views lejepa_dims --scale lab data.path=~/data/cifar10", "lejepa_dims_lab", added="--status"),
    Row("-m sweeps fetch cluster/local.yaml", "the cluster must be up", code=2),
    Row("-m analysis lejepa_views --scale lab --store results/exports", "results/exports", code=1),
    Row("-m analysis lejepa_lambda_views --scale lab --store s3://YOUR-BUCKET/jepa/exports", "YOUR-BUCKET", code=1),
    Row(
        "MLFLOW_TRACKING_URI=http://localhost:5000 sweeps/lejepa_views.py --scale lab --status",
        "cannot be used",
        code=2,
    ),
    Row("-m benchmarks --quick", r"(?s)Quick: .*sigreg \.\.\..*views \.\.\..*sigreg_table \.\.\."),
    Row("-m benchmarks.overhead --quick", r"\| gap, digits, 1 worker +\| lane "),
    Row("-m benchmarks.cell --quick", r"(?s)\| whole cell +\|.*\| protocol linear .*metrics that differ: none"),
    Row("-m benchmarks.plan --quick", "81 cells, all in the store"),
    Row("-m benchmarks.head --quick", r"\| Ray: Mailbox +\| 1 with 1 trials at once"),
    Row("-m benchmarks.on_gpu --quick", r"(?s)\| LeJEPA, replayed +\| .*not met: none; parts that failed: none"),
    Row("-m benchmarks.guide --quick", r"\| preset +\| 1 +\| \d+\.\d +\| [+-]\d+\.\d\d "),
]
RECIPES = {  # command -> parts of the recipe of that target, or of `make demo` for users without make
    "make demo": [ROWS[0].command],
    "make test": ["ruff check", "ruff format --check", "mypy", "tests/unit tests/parity tests/integration"],
    "make test-slow": ["tests/slow", "tests/cluster"],
    "make ui": ["python -m analysis.ui --port 5000"],
    "python3 -m venv .venv": ["-m venv .venv"],
    ".venv/bin/pip install -r requirements.lock": ["-r requirements.lock"],
    ".venv/bin/pip install --no-deps --no-build-isolation -e .": ["--no-deps --no-build-isolation --editable ."],
}
RAY = [
    "up --yes cluster/local.yaml",
    "submit cluster/local.yaml sweeps/my_lambda.py",
    "submit cluster/local.yaml sweeps/lejepa_views.py -- --scale lab data.path=/nfs/cifar10.tar",
    "submit --tmux cluster/local.yaml sweeps/lejepa_views.py -- --scale lab data.path=/nfs/cifar10.tar",
    "submit cluster/local.yaml sweeps/lejepa_views.py -- --scale lab --status",
    "dashboard cluster/local.yaml --port 5000 --remote-port 5000",
    "dashboard cluster/local.yaml",
    "down --yes cluster/local.yaml",
]
JOB = "job submit --address http://localhost:8265 --no-wait --working-dir . -- python sweeps/lejepa_views.py --scale lab data.path=/nfs/cifar10.tar"  # noqa: E501
TOKEN = ".venv/bin/ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token"
CLONE = "git clone REPOSITORY_URL jepa-sweeps"
EDIT = "sed 's/name: jepa-sweep$/name: jepa-export/; s/entrypoint: .*/entrypoint: python -m analysis export/' cluster/rayjob.yaml"  # noqa: E501
LAUNCHERS = {  # of other programs, whose files tests/slow/test_cluster_scripts.py and test_rayjob.py test
    "sbatch cluster/slurm.sh lejepa_views --scale lab data.path=/nfs/cifar10.tar",
    "docker build -f cluster/Dockerfile -t REGISTRY/jepa-sweeps:0.1.0 . && docker push REGISTRY/jepa-sweeps:0.1.0",
    "kubectl apply -f cluster/rayjob.yaml",
}
METRICS = {
    **{"epoch": 1.0, "val/probe_top1": 0.5, "test/probe_top1": 0.625, "test/projector_top1": 0.375},
    **{"test/linear_top1": 0.65, "test/knn_top1": 0.25, "test/nonzero_fraction": 0.75, "target/nonzero_fraction": 0.5},
    **{"train/loss": 1.5},
}


def with_python(row: Row) -> str:
    """The command as the pages print it."""
    variables, _, rest = row.command.rpartition("=http://localhost:5000 ")
    return f"{variables}=http://localhost:5000 .venv/bin/python {rest}" if variables else f".venv/bin/python {rest}"


def fill(
    name: str, proposed: Sequence[dict[str, float]] = (), *, scale: Scale | None = None, weights: bool = False
) -> None:
    """Record the cells of a sweep file, and points that a search proposed, as finished; with checkpoints if asked."""
    names = runpy.run_path(name)
    sweep = at_scale(names["sweep" if scale else "SWEEP"], scale)
    plan = make_plan(sweep, Path(name).resolve())
    cells = [*plan.fixed, *(make_cell(sweep, sweep.base, point) for point in proposed)]
    score = {cell.key: 0.5 + number / 100 for number, cell in enumerate(cells)}
    record(plan, cells, lambda cell: METRICS | {"epoch": float(cell.config.epochs), "val/probe_top1": score[cell.key]})
    for cell in cells if weights else ():
        with Checkpoints(checkpoints_dir(sweep.name) / cell.key, cell.config) as saves:
            saves.finish(build_network(cell.config, 10).state_dict(), [METRICS])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder like the project's, with the README's sweeps and a store of finished cells."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "sweeps").mkdir()
    for place in (*ROOT.iterdir(), *(ROOT / "sweeps").iterdir()):
        if place.name not in ("sweeps", "results", ".venv", ".git"):
            (folder / place.relative_to(ROOT)).symlink_to(place)
    for name, code in re.findall(r"<!-- (sweeps/my_\w+\.py) -->\n```python\n(.*?)```", README + WEIGHTS, re.DOTALL):
        (folder / name).write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JEPA_RESULTS", str(folder / "store"))
        patch.setenv("HOME", str(folder))
        ssh = folder / "bin/ssh"  # no machine answers
        ssh.parent.mkdir()
        ssh.write_text("#!/bin/sh\nexit 255\n")
        ssh.chmod(0o755)
        patch.setenv("PATH", f"{ssh.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        patch.setattr(sweeps, "__path__", [str(folder / "sweeps")])
        lambs = [{"method.lamb": 0.01 * (number + 1), "optim.lr": 1e-3} for number in range(9)]
        further = {"method.num_slices": 256, "optim.weight_decay": 1e-3}
        for name in ("my_lambda", "demo_rectified_lpjepa"):
            fill(f"sweeps/{name}.py")
        fill("sweeps/my_search.py", [*lambs, {**lambs[-1], "seed": 1}, {**lambs[-1], "seed": 2}], weights=True)
        fill("sweeps/demo_lejepa.py", [lamb | further for lamb in lambs[:8]])
        fill("sweeps/demo_two_workers.py")  # whose base is the best cell of the search
        for name in ("lejepa_lambda_views", "rectified_sparsity"):
            fill(f"sweeps/{name}.py", scale="mini")
        yield folder


def test_every_command_is_a_row() -> None:
    rows = {*map(with_python, ROWS), *RECIPES, *LAUNCHERS, TOKEN, f"{CLONE} && cd jepa-sweeps", CLONE, "cd jepa-sweeps"}
    rows |= {f".venv/bin/ray {line}" for line in RAY}
    assert rows | {f"RAY_AUTH_MODE=token .venv/bin/ray {JOB}", f"{EDIT} | kubectl apply -f -"} == COMMANDS
    assert [page for page, file in ELSEWHERE.items() if page not in (ROOT / file).read_text()] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.command)
@pytest.mark.usefixtures("project")
def test_a_command_of_ours(row: Row, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    variable, _, rest = row.command.rpartition("=http://localhost:5000 ")
    if variable:
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    words = shlex.split(f"{rest} {row.added}")
    monkeypatch.setattr(sys, "argv", words[1:] if words[0] == "-m" else words)
    start = runpy.run_module if words[0] == "-m" else runpy.run_path
    with pytest.raises(SystemExit) as exit:
        start(sys.argv[0], run_name="__main__")
    out, error = capfd.readouterr()
    assert (exit.value.code or 0) == row.code, out + error
    assert re.search(row.pattern, out + error), out + error
    assert "Traceback" not in error


@pytest.mark.parametrize("page", [README, WEIGHTS], ids=["README.md", "docs/weights.md"])
@pytest.mark.usefixtures("project")
def test_the_lines_that_load_an_export(page: str) -> None:
    """Of exports that the rows above made."""
    (lines,) = re.findall(r"```python\n(import timm\n.*?)```", page, flags=re.DOTALL)
    names = {"images": torch.zeros(2, 3, 12, 12)}
    exec(lines, names)
    assert names["features"].shape == (2, 96)


@pytest.mark.parametrize("command", RECIPES)
def test_a_command_is_the_recipe_of_a_target(command: str) -> None:
    target = command.removeprefix("make ") if command.startswith("make ") else "demo"
    recipe = shell(f"make --dry-run --always-make {target}")
    assert [part for part in RECIPES[command] if part not in recipe] == []


@pytest.mark.parametrize("line", [*RAY, JOB])
def test_a_command_of_ray_is_parsed_by_ray_and_by_the_sweeps(line: str) -> None:
    """tests/cluster runs them on machines."""
    from ray.scripts.scripts import cli

    from sweeps.engine.cli.args import read_words

    before, _, after = line.partition(" -- ")
    command, rest = cli, before.split()
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context("ray", [*rest, *(["--", *after.split()] if after else [])])  # UsageError if it is none
    files = [word for word in line.split() if word.endswith((".yaml", ".py")) and "my_lambda" not in word]
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert read_words([word for word in after.split() if word not in ("python", *files)]).names == ()


def shell(line: str, home: Path = ROOT) -> str:
    """Output of a command line in a folder that is also HOME."""
    line = line.replace(".venv/bin/", f"{Path(sys.executable).parent}/").replace("REPOSITORY_URL", str(ROOT))
    environment = os.environ | {"HOME": str(home)}
    return subprocess.run(
        ["bash", "-c", line], cwd=home, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_commands_of_the_shell(tmp_path: Path) -> None:
    assert "Makefile" in shell(f"{TOKEN} && {CLONE} && ls jepa-sweeps", tmp_path)
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    job = shell(EDIT)
    assert re.search(r"name: jepa-export$(?s:.*)entrypoint: python -m analysis export$", job, flags=re.MULTILINE)
    named = re.findall(r"cluster/[\w.]+", " ".join(LAUNCHERS))
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_tables_are_of_the_runs_in_docs_results_store() -> None:
    shown = re.findall(r"<!-- (\w+)-(\w+) -->\n(.*?)\n?<!-- end of", README + PAGES["docs/results.md"], flags=re.DOTALL)
    assert len(shown) == 1 + 5 + 15
    for name, scale, text in shown:
        built = table(name, str(ROOT / "docs/results/store"), scale=scale)
        compact, rows = (re.sub(r"\s*\|\s*", "|", part) for part in (text, built))
        assert compact == rows or [line for line in compact.split("\n")[2:] if line not in rows] == [], name
