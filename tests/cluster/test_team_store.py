"""The commands of docs/team.md: a PostgreSQL behind MLflow's server; artifacts, checkpoints and exports on S3.

Run: python -m pytest tests/cluster/test_team_store.py
"""

import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from buckets import new_bucket
from launches import small_sweep
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from jepa_train.storage.storage import storage_path

TEXT = (Path(__file__).parents[2] / "docs/team.md").read_text().replace(".venv/bin/", f"{Path(sys.executable).parent}/")
COMMANDS = [line[2:] for line in TEXT.splitlines() if line.startswith("$ ")]
DOCTOR, LAUNCH, STATUS, TABLE, EXPORT = COMMANDS[-5:]
START_S = 600.0


def documented(text: str) -> str:
    """The one command of docs/team.md that has this text."""
    (found,) = [command for command in COMMANDS if text in command]
    return found


@dataclass(frozen=True)
class Team:
    """Folder and environment of a member; and the server's secrets."""

    folder: Path
    environment: Mapping[str, str]
    bucket: str
    password: str
    database: int  # its port

    def run(self, command: str) -> str:
        """Output of a command of docs/team.md, which shows nobody the password."""
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert self.password not in done.stdout + done.stderr
        return done.stdout


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: list, log: Path, ask: Callable[[], object], end: signal.Signals, **how: object) -> Iterator[None]:
    """A server, from its first answer on until the block ends; the signal `end` ends its children, too."""
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=log.parent, stdout=file, stderr=file, **how)
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                ask()
                break
            except OSError:
                assert server.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.2)
        yield
    finally:
        server.send_signal(end)
        try:
            server.wait(120)
        finally:
            server.kill()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> Iterator[Team]:
    initdb = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder, home = tmp_path_factory.mktemp("team"), tmp_path_factory.mktemp("home")
    data = Path(tempfile.mkdtemp(prefix="jepa-postgres-"))  # which the server's user can reach
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "demo_rectified_lpjepa.py").write_text(small_sweep("demo_rectified_lpjepa"))
    password, admin, port, database = secrets.token_hex(12), secrets.token_hex(12), free_port(), free_port()
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses root
    (data / "password").write_text(admin)
    for path in (data, data / "password") if user else ():
        shutil.chown(path, user)
    make = [initdb, "-D", data / "data", "-U", "admin", "--auth=scram-sha-256", f"--pwfile={data}/password"]
    subprocess.run(make, user=user, cwd=data, check=True, stdout=subprocess.DEVNULL, timeout=START_S)
    serve = [initdb.with_name("postgres"), "-D", data / "data", "-p", str(database), "-k", data, "-h", "127.0.0.1"]
    answers = lambda: socket.create_connection(("127.0.0.1", database)).close()  # noqa: E731
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(serve, folder / "postgres.log", answers, signal.SIGINT, user=user),
    ):
        s3 = new_bucket(s3_server, patch)
        bucket, options = s3[5:].partition("/")[0], s3.partition("?")[2]
        plain = {name: text for name, text in os.environ.items() if not name.startswith(("JEPA_", "MLFLOW_"))}
        admins = {"PGHOST": "127.0.0.1", "PGPORT": str(database), "PGUSER": "admin", "PGPASSWORD": admin}
        roles = documented("create role").replace("PASSWORD", password).replace("sudo -u postgres ", "")
        superuser = plain | admins | {"PGDATABASE": "postgres"}
        subprocess.run(["bash", "-c", roles], env=superuser, check=True, timeout=START_S)
        keep = documented(".pgpass").replace("PASSWORD", password).replace(":5432:", f":{database}:")
        subprocess.run(["bash", "-c", keep], env=plain | {"HOME": str(home)}, check=True, timeout=START_S)
        exports = dict(line.removeprefix("export ").split("=", 1) for line in COMMANDS if line.startswith("export "))
        ours = {name: text.replace("BUCKET", bucket).replace("5000", str(port)) for name, text in exports.items()}
        ours["JEPA_STORAGE"] += f"?{options}"
        theirs = plain | {"HOME": str(home), "MLFLOW_S3_ENDPOINT_URL": f"http://{s3_server}"}
        theirs["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = ours.pop("MLFLOW_SERVER_ENABLE_JOB_EXECUTION")
        server = documented("mlflow server").replace("5000", str(port)).replace("5432", str(database))
        url = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/search?max_results=1"  # needs the tables
        ask = lambda: urllib.request.urlopen(url, timeout=10).close()  # noqa: E731
        command = shlex.split(server.replace("BUCKET", bucket))
        with serving(command, folder / "server.log", ask, signal.SIGTERM, env=theirs):
            yield Team(folder, plain | ours, bucket, password, database)
    shutil.rmtree(data)


def test_a_sweep_runs_through_the_teams_store(team: Team) -> None:
    assert re.search(r"ok +storage +s3://.* can be written to", team.run(DOCTOR))
    first = team.run(LAUNCH)
    assert "2 finished" in team.run(STATUS)
    table = team.run(TABLE).strip()
    assert table in first
    assert all(file.startswith(f"s3://{team.bucket}/jepa/exports/") for file in team.run(EXPORT).split())

    uri = team.environment["MLFLOW_TRACKING_URI"]
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("demo_rectified_lpjepa").experiment_id])
    cells = {run.data.tags["cell_key"] for run in runs if "cell_key" in run.data.tags}
    (own,) = [run for run in runs if "cell_key" not in run.data.tags]
    text = Path(download_artifacts(run_id=own.info.run_id, artifact_path="table.md", tracking_uri=uri)).read_text()
    assert text.strip() == table
    files = [info.path for info in storage_path(team.environment["JEPA_STORAGE"].replace("/jepa?", "?")).files()]
    assert any(path.startswith(f"{team.bucket}/artifacts/") and path.endswith("/table.md") for path in files)
    assert {path.split("/")[-2] for path in files if path.endswith("/final.pt")} == cells


def test_the_database_asks_for_its_password_and_nobody_else_has_it(team: Team) -> None:
    login = f"host=127.0.0.1 port={team.database} user=mlflow dbname=mlflow"
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(f"{login} password=guessed")
    with closing(psycopg2.connect(f"{login} password={team.password}")) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from tags where key = 'cell_key'")
        assert cursor.fetchone() == (2,)
    secret = (team.password.encode(), team.environment["AWS_SECRET_ACCESS_KEY"].encode())
    written = {str(path): path.read_bytes() for path in team.folder.rglob("*") if path.is_file()}
    assert not [name for name, content in written.items() if any(word in content for word in secret)]
