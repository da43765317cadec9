"""The scripts that the nodes of a cluster run, with stand-ins for the programs; a second run does only what is missing.

Run: python -m pytest tests/slow/test_cluster_scripts.py
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from cluster_checks import LOCK, PYTHONS, ROOT, check_script, fits
from stores import until

SCRIPTS = sorted((ROOT / "cluster").glob("*.sh")) + sorted((ROOT / "tests/cluster").glob("*.sh"))
BASH = shutil.which("bash") or "/bin/bash"
UNTIL_OVER = 'for _ in $(seq 1200); do [ -e "$HOME/over" ] && exit; sleep 0.1; done'  # of a program that stays

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
def test_a_script_passes_bash_and_shellcheck(script: Path) -> None:
    check_script(script.read_text())
    assert os.access(script, os.X_OK)


def test_a_node_is_installed_once_and_again_when_the_lock_changes(home: Path, stand: Stand) -> None:
    venv = home / "jepa-venv"
    makes = f'mkdir -p "$3/bin"; cp {home}/bin/pip "$3/bin/pip"; cp {home}/bin/pip "$3/bin/python"'
    stand("pip")
    stand("python3.12", makes)
    quiet = "pip install --quiet --disable-pip-version-check"
    editable = f"{quiet} --no-deps --no-build-isolation --editable {home}/jepa-sweeps"
    packages = f"{quiet} -r {home}/jepa-sweeps/requirements.lock"
    files: list[list[str]] = []
    for expected in ([f"python3.12 -m venv {venv}", packages, editable], [editable], [packages, editable]):
        if len(files) == 2:
            (venv / "requirements.lock").write_text("of yesterday")
        assert run("install.sh", home, JEPA_PYTHON="python3.12").returncode == 0
        assert calls(home) == expected
        (home / "calls").unlink()
        files.append([(home / name).read_text() for name in (".bashrc", ".jepa-node.sh", ".gitconfig")])
    assert files[0] == files[1] == files[2]
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_the_store_is_restored_then_one_mlflow_on_loopback_one_copying_and_one_waiting_for_the_notice(
    home: Path, stand: Stand
) -> None:
    stand(
        "python",
        f"""
        if [ "$4" = restore ]; then exit "${{RESTORED:-0}}"; fi
        if [ "$4" = watch ] || [ "$4" = aws ]; then {UNTIL_OVER}; fi
        test -e "$HOME/up"
        """,
    )
    stand("mlflow", f'touch "$HOME/up"; {UNTIL_OVER}')
    environment = {"JEPA_RESULTS": f"{home}/results", "JEPA_STORAGE": "s3://bucket/jepa"}
    assert run("mlflow.sh", home, **environment, RESTORED="2").returncode == 2
    assert not any(call.startswith("mlflow") for call in calls(home)), "no empty store is begun"
    for _ in range(2):
        for script, *words in (["mlflow.sh"], ["notice.sh", "aws"]):
            assert run(script, home, *words, **environment).returncode == 0  # without waiting for the programs' end
    until(lambda: "python -m sweeps notice aws" in calls(home))
    (home / "over").touch()
    server = (
        "mlflow server --host 127.0.0.1 --port 5000 --workers 1 --uvicorn-opts --log-level warning "
        f"--backend-store-uri sqlite:///{home}/results/mlflow.db --artifacts-destination {home}/results/artifacts"
    )
    restore, watch = [f"python -m sweeps backup {word}" for word in ("restore", "watch")]
    started = [call for call in calls(home) if "import" not in call]
    assert started[:2] == [restore, restore]
    assert sorted(started[2:]) == [server, watch, "python -m sweeps notice aws"]


def test_a_tunnel_to_the_teams_server_is_made_once_and_again_when_it_breaks(home: Path, stand: Stand) -> None:
    stand("python", 'test -e "$HOME/up"')
    stands = 'echo $PPID > "$HOME/loop"; touch "$HOME/up"; exec /usr/bin/sleep 60'
    stand("ssh", f'if [ -e "$HOME/broke" ]; then {stands}; fi; touch "$HOME/broke"; exit 255')
    stand("sleep", "exec /usr/bin/sleep 0.05")
    try:
        for _ in range(2):
            done = run("tunnel.sh", home, "ada@server")
            assert done.returncode == 0, done.stderr
    finally:
        os.kill(int((home / "loop").read_text()), signal.SIGKILL)
    assert [call for call in calls(home) if call.startswith("ssh")] == 2 * [
        f"ssh -N -L 5000:127.0.0.1:5000 -i {home}/.ssh/mlflow -o BatchMode=yes -o StrictHostKeyChecking=accept-new "
        "-o ExitOnForwardFailure=yes -o ServerAliveInterval=15 ada@server"
    ]


HEAD = """
import socket, sys
with socket.create_server((sys.argv[1].split(":")[0], int(sys.argv[1].split(":")[1]))) as server:
    while True:
        server.accept()[0].close()
        open(sys.argv[2], "w").close()
"""
JOB = str(100_000 + os.getpid() % 100_000)  # names its folder in /tmp


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (2, 0), (3, 1)])
def test_a_machine_of_the_local_provider_gets_three_attempts_to_start_ray(
    home: Path, stand: Stand, failures: int, code: int
) -> None:
    """Ray's autoscaler would never try it again."""
    stand("ray", f'[ "$1" = stop ] || [ "$(grep -c "ray start" "$HOME/calls")" -gt {failures} ]')
    command = yaml.safe_load((ROOT / "cluster/local.yaml").read_text())["worker_start_ray_commands"][-1]
    environment = {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin", "RAY_HEAD_IP": "192.0.2.1"}
    done = subprocess.run([BASH, "-c", f"({command})"], env=environment, timeout=60, check=False)
    assert done.returncode == code
    start = "ray start --address=192.0.2.1:6379"
    assert calls(home) == [start, "ray stop"] * failures + [start] * (1 - code)


@pytest.fixture
def slurm(home: Path, stand: Stand) -> Iterator[Path]:
    """A cluster of two nodes. Ray runs the sweep on the first; on the second it waits until it is killed."""
    (home / "cluster").symlink_to(ROOT / "cluster")
    stand("sleep", "exec /bin/sleep 0.1")
    stand("scontrol", "printf '%s\\n' node-7 localhost")
    stand(
        "srun",
        """
        case "$*" in *--kill-on-bad-exit=0*) ;; *) bad=1 ;; esac
        while [ "$1" != bash ]; do shift; done
        on() { SLURM_NODEID=$1 RAY_TMPDIR=$RAY_TMPDIR-$1 exec "${@:2}"; }
        on 0 "$@" & first=$!
        on 1 "$@" & second=$!
        trap 'echo forced >> "$HOME/calls"; kill $first $second 2> /dev/null; wait; exit 143' TERM
        wait $second || [ -z "$bad" ] || kill $first
        wait
        """,
    )
    stand(
        "ray",
        """
        [ "$1" = symmetric-run ] || exit
        touch "$RAY_TMPDIR/log"
        echo "on $SLURM_NODEID: $RAY_AUTH_MODE $RAY_USAGE_STATS_ENABLED $RAY_TMPDIR $JEPA_CACHE" >> "$HOME/calls"
        if [ "$SLURM_NODEID" = 1 ]; then [ -z "$LOST" ] || exit 1; exec /bin/sleep 300; fi
        python -c "$HEAD" "$3" "$RAY_TMPDIR/seen" & head=$!
        until [ -e "$RAY_TMPDIR/seen" ] || [ -n "$LOST" ]; do sleep 1; done
        while [ "$1" != -- ]; do shift; done
        shift
        "$@"
        code=$?
        kill $head
        exit $code
        """,
        folder=home / ".venv/bin",
    )
    stand(
        "python",
        f'[ "$1" != -c ] || exec {sys.executable} "$@"; /bin/sleep "${{SWEEP_TAKES:-0}}"; exit "${{SWEEP_ENDS:-0}}"',
        folder=home / ".venv/bin",
    )
    yield home
    assert [*Path("/tmp").glob(f"jepa-{JOB}*")] == []  # whatever came of it


def sbatch(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"SLURM_JOB_ID": JOB, "SLURM_JOB_NODELIST": "node-[7,9]", "SLURM_CPUS_PER_TASK": "16"}
    variables |= {"JEPA_CACHE": str(home / "cache"), "SLURM_SUBMIT_DIR": str(home), "HEAD": HEAD}
    return run("slurm.sh", home, *words, **variables | environment)


def test_slurm_starts_ray_on_every_node_and_the_sweep_on_the_first(slurm: Path) -> None:
    done = sbatch(slurm, "lejepa_views", "--scale", "paper", "data.path=/a folder")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # above all not the token
    assert (slurm / ".ray/auth_token").read_text() == "token"
    lines = calls(slurm)
    address = f"127.0.0.1:{20000 + int(JOB) % 10000}"  # by which the other one, localhost, is reached; not node-7
    words = "lejepa_views --scale paper data.path=/a folder"
    assert [line for line in lines if line.startswith("srun ")] == [
        "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=16 --no-kill --kill-on-bad-exit=0 --wait=0 "
        f"bash cluster/slurm_node.sh {address} 2 {words}"
    ]
    starts = [line.partition(" -- ")[0] for line in lines if line.startswith("ray symmetric-run")]
    assert starts == 2 * [f"ray symmetric-run --address {address} --min-nodes 2 --num-cpus=16"]
    settings = {line for line in lines if line.startswith("on ")}
    assert settings == {f"on {node}: token 0 /tmp/jepa-{JOB}-{node} {slurm}/cache" for node in (0, 1)}
    assert [line for line in lines if line.startswith("python -m")] == [f"python -m sweeps {words}"]
    assert "ray stop" in lines  # on the second node, which saw that the first had ended
    assert "forced" not in lines


@pytest.mark.parametrize(("code", "lost"), [("1", ""), ("2", ""), ("0", "1")])
def test_a_slurm_job_ends_like_its_sweep_also_without_a_lost_node(code: str, lost: str, slurm: Path) -> None:
    assert sbatch(slurm, "demo_lejepa", SWEEP_ENDS=code, LOST=lost, SWEEP_TAKES="1").returncode == int(code)
    assert [*(slurm / "results").iterdir()] == []


def test_a_slurm_job_whose_sweep_never_began_has_failed(slurm: Path, stand: Stand) -> None:
    stand("ray", "exit 0", folder=slurm / ".venv/bin")  # as symmetric-run ends when Ray's head did not start
    assert sbatch(slurm, "demo_lejepa").returncode == 1
    stand("srun", "exit 0")
    (slurm / f"results/slurm-{JOB}.ended").write_text("0")  # what an earlier try has left does not count
    assert sbatch(slurm, "demo_lejepa").returncode == 1


def test_slurm_lends_the_resources_of_the_sweeps() -> None:
    script = (ROOT / "cluster/slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\d+)$", script, flags=re.MULTILINE))
    resources = {"CPU": int(options["cpus-per-task"]), "GPU": int(options["gpus-per-node"])}
    fits([{"NodeName": "node", "Resources": resources}] * int(options["nodes"]))


def test_the_image_has_the_lock_s_ray_and_a_python_of_ours() -> None:
    image = next(line for line in (ROOT / "cluster/Dockerfile").read_text().splitlines() if line.startswith("FROM"))
    ray, _, python = image.removeprefix("FROM rayproject/ray:").partition("-py3")
    assert ray == LOCK["ray"]
    assert f"3.{python}.1" in PYTHONS
