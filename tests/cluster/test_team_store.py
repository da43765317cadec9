"""docs/team.md, word for word: a real PostgreSQL behind MLflow's server, artifacts, checkpoints and exports on S3."""

import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from jepa_train.object_store import listed
from jepa_train.storage import place_of

ROOT = Path(__file__).parents[2]
COMMANDS = [line[2:] for line in (ROOT / "docs/team.md").read_text().splitlines() if line.startswith("$ ")]
BIN = Path(sys.executable).parent
SWEEP = """
import dataclasses, sys
from jepa_train.methods import LeJEPA
from jepa_train.presets import DIGITS
from sweeps.engine import Sweep, main
SWEEP = Sweep(name="demo_rectified_lpjepa", purpose="A team's.", cpus_per_worker=2, grid={"method.lamb": [0.02, 0.05]},
    base=dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=1))
if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
"""


@dataclass(frozen=True)
class Team:
    """What a member has: the variables, and a folder with the sweep."""

    folder: Path
    environment: Mapping[str, str]
    bucket: str
    password: str  # of the database, which no member has
    port: int  # of the database
    log: Path  # of MLflow's server

    def run(self, command: str, **more: str) -> str:
        """What a command of docs/team.md prints, where it succeeds."""
        words = shlex.split(command.replace(".venv/bin/", f"{BIN}/"))
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert self.password not in done.stdout + done.stderr
        return done.stdout


def documented(beginning: str) -> str:
    """The one command of docs/team.md that begins so."""
    (found,) = [command for command in COMMANDS if command.startswith(beginning)]
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres(admin: str) -> Iterator[int]:
    """The port of a PostgreSQL of its own on loopback, which asks for passwords; it does not run as root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
    if not found[-1].is_file():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder, user = Path(tempfile.mkdtemp(prefix="jepa-postgres-")), "postgres" if os.geteuid() == 0 else None
    (folder / "password").write_text(admin)
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)
    options = ["-U", "admin", "--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync"]
    subprocess.run(
        [found[-1], "-D", folder / "data", *options], user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    port = free_port()
    command = [
        found[-1].with_name("postgres"),
        "-D",
        folder / "data",
        "-p",
        str(port),
        "-k",
        folder,
        "-h",
        "127.0.0.1",
        "-F",
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
    try:
        answers(lambda: socket.create_connection(("127.0.0.1", port)).close(), server)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder)


def answers(ask: object, server: subprocess.Popen) -> None:
    """Wait until asking raises nothing."""
    assert callable(ask)
    deadline = time.monotonic() + 90
    while True:
        try:
            ask()
            return
        except OSError:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)


@pytest.fixture
def team(tmp_path: Path, s3: str, s3_server: str) -> Iterator[Team]:
    bucket, password, admin = s3[5:].partition("/")[0], secrets.token_hex(12), secrets.token_hex(12)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JEPA_", "MLFLOW_"))}
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "demo_rectified_lpjepa.py").write_text(SWEEP)
    with postgres(admin) as database:
        roles = shlex.split(documented("sudo -u postgres psql").replace("PASSWORD", password))[3:]
        admins = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(database),
            "PGUSER": "admin",
            "PGPASSWORD": admin,
            "PGDATABASE": "postgres",
        }
        subprocess.run(roles, env=environment | admins, check=True, stdout=subprocess.DEVNULL)
        home = tmp_path / "home"
        home.mkdir()
        kept = documented("(umask 077").replace("PASSWORD", password).replace(":5432:", f":{database}:")
        subprocess.run(["bash", "-c", kept], env=environment | {"HOME": str(home)}, check=True)
        port = free_port()
        serve = documented(".venv/bin/mlflow server")
        for written, meant in (
            (".venv/bin", str(BIN)),
            ("5000", str(port)),
            ("5432", str(database)),
            ("BUCKET", bucket),
        ):
            serve = serve.replace(written, meant)
        assert password not in serve
        s3_of_ours = {"HOME": str(home), "MLFLOW_S3_ENDPOINT_URL": f"http://{s3_server}"}
        with (tmp_path / "server.log").open("w") as log:
            server = subprocess.Popen(
                shlex.split(serve),
                env=environment | s3_of_ours,
                cwd=home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            answers(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close(), server)
            ours = dict(
                command.removeprefix("export ").split("=", 1) for command in COMMANDS if command.startswith("export ")
            )
            ours["MLFLOW_TRACKING_URI"] = ours["MLFLOW_TRACKING_URI"].replace("5000", str(port))
            ours["JEPA_STORAGE"] = ours["JEPA_STORAGE"].replace("BUCKET", bucket) + f"?{s3.partition('?')[2]}"
            yield Team(tmp_path, environment | ours, bucket, password, database, tmp_path / "server.log")
        finally:
            os.killpg(server.pid, 15)
            server.wait(timeout=30)


def test_a_sweep_runs_through_the_teams_store(team: Team, s3: str):
    *_, doctor, launch, status, table, export = COMMANDS
    assert re.search(r"ok +storage +s3://.* can be written to", team.run(doctor))
    first = team.run(launch)
    assert "2 cells finished" in first or "2 finished" in first, first
    assert "2 of 2 cells done before" in team.run(launch)
    assert "2 finished" in team.run(status) or "finished" in team.run(status)
    shown = team.run(table)
    assert shown.strip() in first
    uri = team.environment["MLFLOW_TRACKING_URI"]
    files = team.run(export).split()
    assert all(file.startswith(f"s3://{team.bucket}/jepa/exports/") for file in files)
    assert len(files) == 5

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("demo_rectified_lpjepa")
    runs = client.search_runs([experiment.experiment_id])
    cells = [run for run in runs if "cell_key" in run.data.tags]
    (own,) = [run for run in runs if "cell_key" not in run.data.tags]
    assert [run.data.tags["status"] for run in cells] == ["finished"] * 2
    text = Path(download_artifacts(run_id=own.info.run_id, artifact_path="table.md", tracking_uri=uri)).read_text()
    assert text.strip() == shown.strip()
    kept = {info.path: info.size for info in listed(place_of(s3.replace("/team", "")))}
    assert any(path.startswith(f"{team.bucket}/artifacts/") and path.endswith("/table.md") for path in kept)
    finals = [path for path in kept if path.endswith("/final.pt")]
    assert sorted(path.split("/")[-2] for path in finals) == sorted(run.data.tags["cell_key"] for run in cells)

    login = f"host=127.0.0.1 port={team.port} user=mlflow dbname=mlflow"
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(login, passfile="/dev/null")
    with closing(psycopg2.connect(f"{login} password={team.password}")) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from runs")
        assert cursor.fetchone() == (len(runs),)
    dump = ["pg_dump", "-h", "127.0.0.1", "-p", str(team.port), "-U", "mlflow", "mlflow"]
    content = subprocess.run(
        dump, env={**os.environ, "PGPASSWORD": team.password}, capture_output=True, check=True
    ).stdout
    assert b"demo_rectified_lpjepa" in content
    hidden = [team.password.encode(), team.environment["AWS_SECRET_ACCESS_KEY"].encode()]
    written = [path for path in team.folder.rglob("*") if path.is_file() and path.name != ".pgpass"]
    for place, found in [("database", content), *((path, path.read_bytes()) for path in written)]:
        assert not any(secret in found for secret in hidden), place


def test_who_uses_the_database_itself_sees_no_password(team: Team):
    *_, doctor, _, status, table, _ = COMMANDS
    direct = f"postgresql+psycopg2://mlflow:{team.password}@127.0.0.1:{team.port}/mlflow"
    (told,) = [line for line in team.run(doctor, MLFLOW_TRACKING_URI=direct).splitlines() if " store " in line]
    assert told.startswith("ok ")
    team.run(status, MLFLOW_TRACKING_URI=direct)
    words = shlex.split(table.replace(".venv/bin/", f"{BIN}/"))
    environment = {**team.environment, "MLFLOW_TRACKING_URI": direct}
    done = subprocess.run(words, cwd=team.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "//127.0.0.1" in done.stderr
    assert team.password not in done.stdout + done.stderr
