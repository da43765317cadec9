"""Every command of the README, run as it stands there, in a store whose cells are done; nothing trains but the one run.

`make demo` and `make test` are read, not run: the first takes minutes, the second is what runs this.
"""

import inspect
import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from analysis.tables import table
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config.flat import cell_key, flatten
from jepa_train.config.scales import Scale
from jepa_train.model.network import build_network
from sweeps import demo_lejepa, demo_rectified_lpjepa, demo_two_workers, lejepa_lambda_views, rectified_sparsity
from sweeps.engine.cli.args import read_words
from sweeps.engine.plan.describe import open_ledger
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.cells import Cell, fixed_cells, make_cell
from sweeps.engine.spec.scale import at_scale
from sweeps.engine.store.reader import best_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", README, flags=re.MULTILINE)
METRICS = {
    "epoch": 1.0,
    "val/probe_top1": 0.5,
    "test/linear_top1": 0.625,
    "test/linear_projector_top1": 0.375,
    "test/knn_top1": 0.25,
    "test/nonzero_fraction": 0.75,
    "target/nonzero_fraction": 0.5,
    "train/loss": 1.5,
}


def fill(module: ModuleType, proposed: Sequence[Cell] = (), *, scale: Scale | None = None) -> None:
    """Record the sweep's known cells, and those that a search proposed, as finished."""
    file = Path(str(module.__file__)).resolve()
    plan = make_plan(at_scale(module.sweep if scale else module.SWEEP, scale), file)
    ledger = open_ledger(plan, note=print, publish=lambda: "")
    for number, cell in enumerate((*plan.fixed, *proposed)):
        ledger.start(cell, devices=1.0)
        ledger.log(cell.key, METRICS | {"epoch": float(cell.config.epochs), "val/probe_top1": 0.5 + number / 100})
        ledger.end(cell.key, "finished", "")
    assert ledger.close() == ""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user whose demo and mini sweeps are done."""
    results = tmp_path_factory.mktemp("readme") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JEPA_RESULTS", str(results))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        search = demo_lejepa.SWEEP
        point = {"method.num_slices": 256, "optim.lr": 1e-3, "optim.weight_decay": 1e-3}
        proposed = [
            make_cell(search, search.base, {**point, "method.lamb": 0.01 * (n + 1)}) for n in range(search.trials)
        ]
        fill(demo_lejepa, proposed)
        assert cell_key(best_config("demo_lejepa")) == proposed[-1].key
        fill(demo_rectified_lpjepa)
        fill(demo_two_workers)
        fill(lejepa_lambda_views, scale="mini")
        fill(rectified_sparsity, scale="mini")
        return {**os.environ, "JEPA_RESULTS": str(results)}


def run(command: str, environment: dict[str, str], *, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A README command, in the repository's root, with this Python."""
    words = [sys.executable if word == ".venv/bin/python" else word for word in shlex.split(command)]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_every_command_of_the_readme_is_covered_here():
    tested = {name for name, value in globals().items() if name.startswith("test_") and value.__doc__}
    covered = {command for name in tested for command in COMMANDS if command in globals()[name].__doc__}
    assert covered == set(COMMANDS)


def test_one_run(environment):
    """.venv/bin/python -m jepa_train method=lejepa data.name=digits epochs=5 method.lamb=0.02"""
    done = run(test_one_run.__doc__, environment)
    assert done.returncode == 0, done.stderr
    assert "finished at epoch 5" in done.stdout
    assert float(re.search(r"linear_top1\s.*?(0\.\d+)", done.stdout).group(1)) > 0.8


def test_a_run_with_checkpoints_is_evaluated_later(environment, tmp_path):
    """.venv/bin/python -m jepa_train epochs=3 --checkpoints results/run1
    .venv/bin/python -m jepa_train --evaluate results/run1/final.pt probe.protocols=kshot,sgd

    Not in the repository's root, where results/ is the user's.
    """
    first, second = (
        line.strip() for line in inspect.getdoc(test_a_run_with_checkpoints_is_evaluated_later).split("\n")[:2]
    )
    done = run(first, environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "results/run1").glob("*.pt")] == ["final.pt"]
    done = run(second, environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("evaluated at epoch 3")
    for name in ("shot1_top1", "shot10_projector_top1", "sgd_top1"):
        val_and_test = re.search(rf"^\W*{name}\W+(0\.\d+)\W+(0\.\d+)\W*$", done.stdout, flags=re.MULTILINE)
        assert min(float(value) for value in val_and_test.groups()) > 0.3, name


def test_finished_cells_are_judged_by_another_protocol_later(environment):
    """.venv/bin/python sweeps/demo_rectified_lpjepa.py --evaluate probe.protocols=sgd"""
    results = Path(environment["JEPA_RESULTS"])
    sweep = demo_rectified_lpjepa.SWEEP
    cells = fixed_cells(sweep, sweep.base)
    for cell in cells:
        weights = build_network(cell.config, num_classes=10).state_dict()
        Checkpoints(results / "checkpoints" / sweep.name / cell.key, cell.config).finish(weights, [METRICS])
    done = run(test_finished_cells_are_judged_by_another_protocol_later.__doc__, environment)
    assert done.returncode == 0, done.stderr + done.stdout
    client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(sweep.name)
    runs = client.search_runs([experiment.experiment_id], "tags.role = 'cell'")
    assert len(runs) == len(cells)
    assert all(0.2 < found.data.metrics["test/sgd_top1"] < 1 for found in runs)
    assert {found.data.metrics["test/linear_top1"] for found in runs} == {METRICS["test/linear_top1"]}


def test_the_quoted_error_is_what_is_printed(environment):
    done = run(".venv/bin/python -m jepa_train method.lamda=0.1", environment)
    assert done.returncode == 2
    assert done.stderr.strip() in README


def test_dry_run(environment):
    """.venv/bin/python sweeps/demo_rectified_lpjepa.py --dry-run"""
    done = run(test_dry_run.__doc__, environment)
    total = len(fixed_cells(demo_rectified_lpjepa.SWEEP, demo_rectified_lpjepa.SWEEP.base))
    assert done.returncode == 0, done.stderr
    assert f"{total} of {total} cells done" in done.stdout
    assert done.stdout.count("  finished ") == total


def test_running_a_finished_sweep_again_prints_its_table_at_once(environment):
    """.venv/bin/python sweeps/demo_rectified_lpjepa.py"""
    done = run(test_running_a_finished_sweep_again_prints_its_table_at_once.__doc__, environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "62.5" in done.stdout
    assert not (Path(environment["JEPA_RESULTS"]) / "ray").exists()


def test_doctor_finds_a_ready_machine(environment):
    """.venv/bin/python -m sweeps doctor demo_rectified_lpjepa"""
    done = run(test_doctor_finds_a_ready_machine.__doc__, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for check in ("Python", "packages", "store", "Ray", "demo_rectified_lpjepa"):
        assert re.search(rf"^(ok|warning) +{check} ", done.stdout, flags=re.MULTILINE), done.stdout


def test_status_explain_and_retry_of_a_finished_sweep(environment):
    """.venv/bin/python sweeps/demo_rectified_lpjepa.py --status
    .venv/bin/python sweeps/demo_rectified_lpjepa.py --explain "p=0.5 mu=-1"
    .venv/bin/python sweeps/demo_rectified_lpjepa.py --retry failed
    """
    total = len(fixed_cells(demo_rectified_lpjepa.SWEEP, demo_rectified_lpjepa.SWEEP.base))
    commands = inspect.getdoc(test_status_explain_and_retry_of_a_finished_sweep).splitlines()
    status, explain, retry = (run(command, environment) for command in commands)
    assert [done.returncode for done in (status, explain, retry)] == [0, 0, 0], status.stderr + explain.stderr
    assert status.stdout.startswith(f"demo_rectified_lpjepa: {total} finished of {total} cells; no launch runs it")
    assert "* method.mu" in explain.stdout
    assert f"{total} finished of {total} cells; 0 ended in this launch" in retry.stdout


def test_the_demo_again_runs_nothing_and_prints_all_tables(environment):
    """make demo"""
    recipe = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (command,) = [line.strip() for line in recipe.splitlines() if "-m sweeps" in line]
    done = run(command, environment)
    assert done.returncode == 0, done.stderr
    for name in ("demo_lejepa", "demo_rectified_lpjepa", "demo_two_workers"):
        assert re.search(rf"{name}: (\d+) of \1 cells done", done.stdout), done.stdout
    assert "random init" in done.stdout
    assert "2 workers" in done.stdout
    assert not (Path(environment["JEPA_RESULTS"]) / "ray").exists()


def test_make_test_runs_linter_type_checker_and_tests():
    """make test"""
    recipe = subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for tool in ("ruff check", "ruff format --check", "mypy", 'pytest -m "not slow"'):
        assert tool in recipe


def test_make_test_slow_runs_the_others():
    """make test-slow"""
    told = subprocess.run(["make", "--dry-run", "test-slow"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pytest -m slow" in told.stdout


def test_data_may_lie_elsewhere(environment, tmp_path):
    """.venv/bin/python sweeps/colour_folder.py data.path=~/data/cifar10

    Not to the end, which would train: with --dry-run added, on a home folder with small images at that place.
    """
    command = test_data_may_lie_elsewhere.__doc__.partition("\n")[0]
    rng = np.random.default_rng(0)
    for split, label, number in itertools.product(("train", "test"), range(10), range(3)):
        folder = tmp_path / "data/cifar10" / split / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    done = run(f"{command} --dry-run", {**environment, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "colour_folder: 0 of 2 cells done" in done.stdout
    assert re.findall(r"^ +missing .* (lamb=\S+)$", done.stdout, flags=re.MULTILINE) == ["lamb=0.01", "lamb=0.05"]
    done = run(".venv/bin/python sweeps/colour_folder.py data.path=/nowhere/cifar10", environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: data.path must be a folder, got '/nowhere/cifar10'")
    done = run(".venv/bin/python sweeps/colour_folder.py epochs=3", environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: epochs is part of the cell")


def test_quick_benchmarks(environment):
    """.venv/bin/python -m benchmarks --quick"""
    done = run(test_quick_benchmarks.__doc__, environment)
    assert done.returncode == 0, done.stderr
    assert "SIGReg" in done.stdout
    assert "RDMReg" in done.stdout


def test_the_benchmarks_shown_are_the_recorded_ones():
    shown = README[README.index("<!-- benchmarks -->") : README.index("<!-- end of benchmarks -->")]
    recorded = (ROOT / "benchmarks/results/amd-epyc-2-cores.md").read_text()
    cells = [{cell.strip() for cell in line.split("|")} for line in recorded.splitlines() if line.startswith("|")]
    rows = [{cell.strip() for cell in line.split("|")} for line in shown.splitlines() if re.match(r"\| .*\d", line)]
    assert len(rows) > 20
    assert all(any(row <= recorded_row for recorded_row in cells) for row in rows if "points" not in row)


def test_tables(environment):
    """.venv/bin/python -m analysis and .venv/bin/python -m analysis demo_rectified_lpjepa --format latex"""
    listing = run(".venv/bin/python -m analysis", environment)
    assert listing.returncode == 0, listing.stderr
    assert "demo_rectified_lpjepa" in listing.stdout
    table = run(".venv/bin/python -m analysis demo_rectified_lpjepa --format latex", environment)
    assert table.returncode == 0, table.stderr
    assert r"\toprule" in table.stdout


def test_the_studies_again_run_nothing_and_print_both_tables(environment):
    """.venv/bin/python -m sweeps lejepa_lambda_views rectified_sparsity --scale mini"""
    done = run(test_the_studies_again_run_nothing_and_print_both_tables.__doc__, environment)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\w+): 45 finished of 45 cells", done.stdout) == [
        "lejepa_lambda_views_mini",
        "rectified_sparsity_mini",
    ]
    assert "**LeJEPA: lamb against views" in done.stdout


def test_the_studies_on_cifar_10(environment):
    """.venv/bin/python -m sweeps lejepa_lambda_views rectified_sparsity --scale small data.path=~/data/cifar10

    With --status added: it takes an hour.
    """
    command = inspect.getdoc(test_the_studies_on_cifar_10).partition("\n")[0]
    done = run(f"{command} --status", environment)
    assert done.returncode == 0, done.stderr
    assert "lejepa_lambda_views_small" in done.stdout


def test_the_tables_shown_are_of_the_runs_beside_them(environment):
    """.venv/bin/python -m analysis lejepa_lambda_views --scale small --store docs/results/store"""
    shown = dict(re.findall(r"<!-- (\w+-\w+) -->\n(.*?)\n<!-- end of \1 -->", README, flags=re.DOTALL))
    assert len(shown) == 4
    for label, text in shown.items():
        name, _, scale = label.partition("-")
        assert text == table(name, str(ROOT / "docs/results/store"), scale=scale), label
    done = run(test_the_tables_shown_are_of_the_runs_beside_them.__doc__, environment)
    assert done.stdout == shown["lejepa_lambda_views-small"] + "\n"


def test_what_is_written_of_a_study(environment, tmp_path):
    """.venv/bin/python -m analysis lejepa_lambda_views --scale mini --against-paper
    .venv/bin/python -m analysis lejepa_lambda_views --scale mini --output results/tables
    .venv/bin/python -m analysis figure lambda_views --scale mini
    .venv/bin/python -m analysis report lejepa_lambda_views --scale mini
    .venv/bin/python -m analysis export lejepa_lambda_views --scale mini
    """
    told = []
    for command in inspect.getdoc(test_what_is_written_of_a_study).splitlines():
        done = run(command, {**environment, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert "not comparable" in told[0]
    assert (tmp_path / "results/tables/lejepa_lambda_views-mini.provenance.json").is_file()
    written = [Path(line) for text in told[2:] for line in text.splitlines()]
    assert len(written) == 2 + 1 + 5
    assert all((tmp_path / file).stat().st_size > 1000 for file in written)


def test_the_ui_serves_the_links_it_prints_on_loopback(environment):
    """make ui"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    recipe = subprocess.run(["make", "--dry-run", "ui"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m analysis.ui --port 5000" in recipe
    words = [sys.executable, "-m", "analysis.ui", "--port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    server = subprocess.Popen(words, cwd=ROOT, env=environment, text=True, start_new_session=True, **pipes)
    hung = threading.Timer(120, server.kill)  # then its line is empty
    try:
        hung.start()
        assert f"http://127.0.0.1:{port}/#/experiments/" in server.stdout.readline()
        assert answer(f"http://127.0.0.1:{port}/health") == "OK"
    finally:
        hung.cancel()
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def answer(url: str) -> str:
    """What the server says, once it is up."""
    for _ in range(120):
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.read().decode()
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(url)


def test_the_sweep_shown_is_the_file():
    shown = re.search(r"```python\n(.+?)```", README, flags=re.DOTALL).group(1)
    assert shown.strip() == (ROOT / "sweeps/demo_rectified_lpjepa.py").read_text().strip()


def shell(command: str, environment: dict[str, str], *, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A README command as a shell has it, in the repository's root, with this Python's programs."""
    words = command.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["/bin/bash", "-c", words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_rays_token_is_made_for_its_user_alone(environment, tmp_path):
    """.venv/bin/ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token"""
    done = shell(test_rays_token_is_made_for_its_user_alone.__doc__, {**environment, "HOME": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_what_ray_is_told_are_commands_of_ray_and_of_sweeps():
    """.venv/bin/ray up --yes cluster/local.yaml
    .venv/bin/ray submit cluster/local.yaml sweeps/lejepa_views.py -- --scale lab data.path=/nfs/cifar10.tar
    .venv/bin/ray submit --tmux cluster/local.yaml sweeps/lejepa_views.py -- --scale lab data.path=/nfs/cifar10.tar
    .venv/bin/ray submit cluster/local.yaml sweeps/lejepa_views.py -- --scale lab --status
    .venv/bin/ray dashboard cluster/local.yaml --port 5000 --remote-port 5000
    .venv/bin/ray dashboard cluster/local.yaml
    RAY_AUTH_MODE=token .venv/bin/ray job submit --address http://localhost:8265 --no-wait --working-dir . -- python sweeps/lejepa_views.py --scale lab data.path=/nfs/cifar10.tar
    .venv/bin/ray down --yes cluster/local.yaml

    Parsed by Ray's own command line and ours; tests/cluster runs them, and those of fetch, on machines.
    """  # noqa: E501
    from ray.scripts.scripts import cli

    for line in inspect.getdoc(test_what_ray_is_told_are_commands_of_ray_and_of_sweeps).split("\n\n")[0].splitlines():
        words = shlex.split(line.partition(".venv/bin/ray ")[2])
        told, _, after = " ".join(words).partition(" -- ")
        command, rest = cli, told.split()
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context("ray", [*rest, *(["--", *after.split()] if after else [])])  # UsageError if it is none
        files = [word for word in (*rest, *after.split()) if word.endswith((".yaml", ".py"))]
        assert [name for name in files if not (ROOT / name).is_file()] == []
        assert read_words([word for word in after.split() if word not in ("python", *files)]).names == ()


def test_from_a_laptop(environment, tmp_path):
    """.venv/bin/python -m sweeps lejepa_views lejepa_dims --scale lab data.path=~/data/cifar10
    .venv/bin/python -m sweeps fetch cluster/local.yaml
    .venv/bin/python -m analysis lejepa_views --scale lab --store results/exports
    MLFLOW_TRACKING_URI=http://localhost:5000 .venv/bin/python sweeps/lejepa_views.py --scale lab --status

    With --status added to the first, and without a cluster: what is missing is said in one line. Where results/ is not
    the user's, who may have fetched something.
    """
    launch, fetch, table, status = inspect.getdoc(test_from_a_laptop).splitlines()[:4]
    done = shell(f"{launch} --status", environment)
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[::3]] == ["lejepa_views_lab", "lejepa_dims_lab"]
    nowhere = {**environment, "PATH": f"{Path(sys.executable).parent}:/nowhere", "HOME": str(tmp_path)}  # no ssh
    for command, words in ((fetch, "the cluster must be up"), (table, "results/exports"), (status, "cannot be used")):
        told = command.replace("localhost:5000", "127.0.0.1:9")
        for name in ("cluster/local.yaml", "sweeps/lejepa_views.py"):
            told = told.replace(name, str(ROOT / name))
        done = shell(told, nowhere if command == fetch else environment, cwd=tmp_path)
        assert done.returncode != 0
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_what_other_launchers_are_given_is_there():
    """sbatch cluster/slurm.sh lejepa_views --scale lab data.path=/nfs/cifar10.tar
    docker build -f cluster/Dockerfile -t REGISTRY/jepa-sweeps:0.1.0 . && docker push REGISTRY/jepa-sweeps:0.1.0
    kubectl apply -f cluster/rayjob.yaml
    sed 's/name: jepa-sweep$/name: jepa-export/; s/entrypoint: .*/entrypoint: python -m analysis export/' cluster/rayjob.yaml | kubectl apply -f -
    .venv/bin/python -m analysis lejepa_lambda_views --scale lab --store s3://YOUR-BUCKET/jepa/exports

    What they hold is tested in test_cluster_scripts.py and test_rayjob.py.
    """  # noqa: E501
    named = re.findall(r"cluster/\S+", inspect.getdoc(test_what_other_launchers_are_given_is_there))
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_what_a_job_on_kubernetes_has_found_comes_home_by_the_bucket(environment, s3):
    """Another entrypoint for the same job; what it runs; the table at home, which knows the bucket alone."""
    listed = inspect.getdoc(test_what_other_launchers_are_given_is_there).splitlines()
    edit, table = (next(line for line in listed if line.startswith(word)) for word in ("sed", ".venv"))
    job, changed = (
        next(part for part in yaml.safe_load_all(text) if part["kind"] == "RayJob")
        for text in ((ROOT / "cluster/rayjob.yaml").read_text(), shell(edit.partition(" | ")[0], environment).stdout)
    )
    entrypoint = "python -m analysis export"
    assert changed == job | {
        "metadata": {"name": "jepa-export"},
        "spec": job["spec"] | {"entrypoint": entrypoint},
    }
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    done = shell(f".venv/bin/{entrypoint}", environment | credentials | {"JEPA_STORAGE": s3})
    assert done.returncode == 0, done.stderr
    exports = shlex.quote(s3.replace("?", "/exports?"))
    home = table.replace("s3://YOUR-BUCKET/jepa/exports", exports).replace("lab", "mini")
    done = shell(home, environment | credentials | {"JEPA_RESULTS": "/nowhere"})
    assert done.returncode == 0, done.stderr
    assert "lejepa_lambda_views_mini: 45 finished" in done.stdout


def test_make_test_cluster_installs_its_needs_and_runs_the_story():
    """make test-cluster"""
    told = subprocess.run(["make", "--dry-run", "test-cluster"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tests/cluster/needs.sh" in told.stdout
    assert re.search(r"pytest .*tests/cluster$", told.stdout, flags=re.MULTILINE)


def test_flat_keys_in_the_readme_exist():
    keys = set(re.findall(r"\b((?:method|data|views|model|optim|probe)\.[a-z_]+)=", README))
    known = flatten(demo_lejepa.SWEEP.base) | flatten(demo_rectified_lpjepa.SWEEP.base)
    assert keys - {"method.lamda"} <= set(known)
