"""What the nodes of a cluster run; a second time it does only what is missing. Programs are stand-ins here."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_checks import LOCK, PYTHONS, ROOT, check_script, fits

SCRIPTS = sorted((ROOT / "cluster").glob("*.sh"))
SLURM = (ROOT / "cluster/slurm.sh").read_text()

Stand = Callable[..., None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's home: the token as rsync brought it, the project, nothing installed."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("token")
    (tmp_path / ".ray/auth_token").chmod(0o644)
    (tmp_path / "jepa-sweeps").symlink_to(ROOT)
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.fixture
def stand(home: Path) -> Stand:
    """A program that notes how it was called, and then does what the lines say."""

    def made(name: str, lines: str = "", *, folder: Path | None = None) -> None:
        file = (folder or home / "bin") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'#!/bin/bash\necho "{name} $*" >> "$HOME/calls"\n{lines}\n')
        file.chmod(0o755)

    return made


def run(script: str, home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{home}/bin:/usr/bin:/bin"
    return subprocess.run(
        ["bash", str(ROOT / "cluster" / script), *words],
        env={"HOME": str(home), "PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def calls(home: Path) -> list[str]:
    file = home / "calls"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_one(script: Path) -> None:
    check_script(script.read_text())
    assert os.access(script, os.X_OK)


def test_a_node_is_installed_once_and_again_when_the_lock_changes(home: Path, stand: Stand) -> None:
    venv = home / "jepa-venv"
    makes = f'mkdir -p "$3/bin"; cp {home}/bin/pip "$3/bin/pip"; cp {home}/bin/pip "$3/bin/python"'
    stand("pip")
    stand("python3.12", makes)
    assert run("install.sh", home, JEPA_PYTHON="python3.12").returncode == 0
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    quiet = "pip install --quiet --disable-pip-version-check"
    editable = f"{quiet} --no-deps --no-build-isolation --editable {home}/jepa-sweeps"
    packages = f"{quiet} -r {home}/jepa-sweeps/requirements.lock"
    assert calls(home) == [f"python3.12 -m venv {venv}", packages, editable]
    first = {name: (home / name).read_text() for name in (".bashrc", ".jepa-node.sh", ".gitconfig")}
    (home / "calls").unlink()
    assert run("install.sh", home, JEPA_PYTHON="python3.12").returncode == 0
    assert calls(home) == [editable]
    assert {name: (home / name).read_text() for name in first} == first
    (home / "calls").unlink()
    (venv / "requirements.lock").write_text("of yesterday")
    assert run("install.sh", home, JEPA_PYTHON="python3.12").returncode == 0
    assert calls(home) == [packages, editable]


def test_a_login_shell_finds_the_venv_and_the_settings(home: Path, stand: Stand) -> None:
    stand("pip")
    stand("python3.12", f'mkdir -p "$3/bin"; cp {home}/bin/pip "$3/bin/pip"; cp {home}/bin/pip "$3/bin/python"')
    (home / ".jepa-sweeps.sh").write_text("export JEPA_STORAGE=s3://bucket\n")
    run("install.sh", home, JEPA_PYTHON="python3.12")
    words = ["bash", "--login", "-c", "-i", "source ~/.bashrc; command -v python; echo $JEPA_STORAGE"]  # as Ray does
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [f"{home}/jepa-venv/bin/python", "s3://bucket"]


def test_without_a_token_a_node_is_not_set_up(home: Path, stand: Stand) -> None:
    stand("python3")
    (home / ".ray/auth_token").unlink()
    assert run("install.sh", home).returncode != 0
    assert calls(home) == []


def test_mlflow_starts_on_loopback_over_the_results_and_once(home: Path, stand: Stand) -> None:
    stand("python", 'test -e "$HOME/up"')  # the question whether the server answers
    stand("mlflow", 'touch "$HOME/up"; sleep 5')
    began = time.monotonic()
    done = run("mlflow.sh", home, JEPA_RESULTS=f"{home}/results")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 4  # does not wait for the server's end
    (server,) = [call for call in calls(home) if call.startswith("mlflow")]
    assert server == (
        "mlflow server --host 127.0.0.1 --port 5000 --workers 1 --uvicorn-opts --log-level warning "
        f"--backend-store-uri sqlite:///{home}/results/mlflow.db --artifacts-destination {home}/results/artifacts"
    )
    assert run("mlflow.sh", home, JEPA_RESULTS=f"{home}/results").returncode == 0
    assert [call for call in calls(home) if call.startswith("mlflow")] == [server]


def test_a_store_that_was_copied_is_restored_before_the_server_starts_and_copied_while_it_runs(
    home: Path, stand: Stand
) -> None:
    lines = 'if [ "$4" = restore ]; then exit "${RESTORED:-0}"; fi; [ "$4" != watch ] || sleep 30; test -e "$HOME/up"'
    stand("python", lines)
    stand("mlflow", 'touch "$HOME/up"; sleep 5')
    environment = {"JEPA_RESULTS": f"{home}/results", "JEPA_STORAGE": "s3://bucket/jepa"}
    assert run("mlflow.sh", home, **environment, RESTORED="2").returncode == 2
    assert "mlflow" not in "".join(call.split()[0] for call in calls(home)), "no empty store is begun"
    for _ in range(2):
        assert run("mlflow.sh", home, **environment).returncode == 0
    told = [" ".join(call.split()[:5]) for call in calls(home) if "import" not in call]
    restore, watch = [f"python -m sweeps backup {word}" for word in ("restore", "watch")]
    assert sorted(told) == sorted([restore, restore, "mlflow server --host 127.0.0.1 --port", watch])
    assert told[:2] == [restore, restore]


def test_mlflow_of_somebody_else_is_not_taken_for_ours(home: Path, stand: Stand) -> None:
    stand("python")  # the port answers
    stand("mlflow")
    done = run("mlflow.sh", home, JEPA_RESULTS=f"{home}/results")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.match("error: port 5000 of the head must be free .*, got another server's answer; end that one", line)
    assert not [call for call in calls(home) if call.startswith("mlflow")]


def test_mlflow_needs_to_know_where_the_results_lie(home: Path, stand: Stand) -> None:
    stand("python", "exit 1")
    assert "JEPA_RESULTS: must say where the store lies" in run("mlflow.sh", home).stderr


def test_a_tunnel_to_the_teams_server_is_made_once_and_again_when_it_breaks(home: Path, stand: Stand) -> None:
    stand("python", 'test -e "$HOME/up"')
    stands = 'echo $PPID > "$HOME/loop"; touch "$HOME/up"; exec /usr/bin/sleep 60'
    stand("ssh", f'if [ -e "$HOME/broke" ]; then {stands}; fi; touch "$HOME/broke"; exit 255')
    stand("sleep", "exec /usr/bin/sleep 0.05")
    try:
        for _ in range(2):
            done = run("tunnel.sh", home, "ada@server")
            assert done.returncode == 0, done.stderr
        (home / "up").unlink()
        done = run("tunnel.sh", home, "ada@server")
    finally:
        os.kill(int((home / "loop").read_text()), signal.SIGKILL)
    assert [call for call in calls(home) if call.startswith("ssh")] == 2 * [
        f"ssh -N -L 5000:127.0.0.1:5000 -i {home}/.ssh/mlflow -o BatchMode=yes -o StrictHostKeyChecking=accept-new "
        "-o ExitOnForwardFailure=yes -o ServerAliveInterval=15 ada@server"
    ]
    assert done.returncode == 1
    assert done.stderr.startswith("error: the MLflow server must answer on port 5000 of the head, through a tunnel to ")


def test_one_watcher_waits_for_the_notice(home: Path, stand: Stand) -> None:
    stand("python", "sleep 3")
    for _ in range(2):
        began = time.monotonic()
        assert run("notice.sh", home, "aws").returncode == 0
        assert time.monotonic() - began < 2
        time.sleep(0.5)
    assert calls(home) == ["python -m sweeps notice aws"]


@pytest.fixture
def slurm(home: Path, stand: Stand) -> Path:
    """A cluster of two nodes: srun runs the sweep on the first, and kills the second's Ray, which waits for ever."""
    stand("scontrol", "printf 'node-%s\\n' 7 9")
    lines = 'echo "$RAY_AUTH_MODE $RAY_USAGE_STATS_ENABLED $RAY_TMPDIR" >> "$HOME/calls"'
    stand("srun", f'{lines}; while [ "$1" != -- ]; do shift; done; shift; "$@"; exit 137')
    stand("ray", 'mkdir -p ~/.ray; echo new > ~/.ray/auth_token; echo "a token"', folder=home / ".venv/bin")
    stand("python", 'exit "${SWEEP_ENDS:-0}"', folder=home / ".venv/bin")
    return home


def sbatch(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": "node-[7,9]", "SLURM_CPUS_PER_TASK": "16"}
    return run("slurm.sh", home, *words, SLURM_SUBMIT_DIR=str(home), **given, **environment)


def test_slurm_starts_ray_on_every_node_and_the_sweep_on_the_first(slurm: Path) -> None:
    done = sbatch(slurm, "lejepa_views", "--scale", "paper", "data.path=/a folder")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # above all not the token
    assert (slurm / ".ray/auth_token").read_text() == "token"
    asked, started, settings, sweep = calls(slurm)
    assert asked == "scontrol show hostnames node-[7,9]"
    assert started.startswith(
        "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=16 --wait=30 --kill-on-bad-exit=1 "
        "ray symmetric-run --address node-7:22345 --min-nodes 2 --num-cpus=16 -- "
    )
    assert settings == "token 0 /tmp/jepa-12345"
    assert sweep == "python -m sweeps lejepa_views --scale paper data.path=/a folder"


@pytest.mark.parametrize("code", ["0", "1", "2"])
def test_a_slurm_job_ends_like_its_sweep(code: str, slurm: Path) -> None:
    assert sbatch(slurm, "demo_lejepa", SWEEP_ENDS=code).returncode == int(code)


def test_a_slurm_job_whose_sweep_never_began_has_failed(slurm: Path, stand: Stand) -> None:
    assert sbatch(slurm, "demo_lejepa").returncode == 0
    stand("srun", "exit 0")
    assert sbatch(slurm, "demo_lejepa").returncode == 1  # what an earlier try has left does not count


def test_slurm_makes_a_token_where_there_is_none_and_shows_it_to_nobody(slurm: Path) -> None:
    (slurm / ".ray/auth_token").unlink()
    done = sbatch(slurm, "demo_lejepa")
    assert done.returncode == 0, done.stderr
    assert "a token" not in done.stdout + done.stderr
    assert (slurm / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_slurm_lends_what_the_sweeps_ask_for() -> None:
    asked = dict(
        line.removeprefix("#SBATCH --").split("=", 1)
        for line in SLURM.splitlines()
        if line.startswith("#SBATCH --") and "=" in line
    )
    resources = {"CPU": int(asked["cpus-per-task"]), "GPU": int(asked["gpus-per-node"])}
    fits([{"NodeName": "node", "Resources": resources}] * int(asked["nodes"]))


def test_slurm_reads_its_options_before_the_first_command() -> None:
    lines = SLURM.splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])


def test_the_image_has_the_lock_s_ray_and_a_python_of_ours() -> None:
    image = next(line for line in (ROOT / "cluster/Dockerfile").read_text().splitlines() if line.startswith("FROM"))
    ray, _, python = image.removeprefix("FROM rayproject/ray:").partition("-py3")
    assert ray == LOCK["ray"]
    assert f"3.{python}.1" in PYTHONS
