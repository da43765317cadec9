"""docs/team.md, word for word: a real PostgreSQL behind MLflow's server; artifacts, checkpoints and exports on S3."""

import os
import re
import secrets
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from buckets import new_bucket
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from team import COMMANDS, START_S, documented, exported, free_port, here, mlflow_server, postgres

from jepa_train.storage.storage import storage_path

DOCTOR, LAUNCH, STATUS, TABLE, EXPORT = COMMANDS[-5:]
SWEEP = """
import dataclasses, sys
from jepa_train.methods import LeJEPA
from jepa_train.config.presets import DIGITS
from sweeps.engine import Sweep, main
SWEEP = Sweep(name="demo_rectified_lpjepa", purpose="A team's.", cpus_per_worker=2, grid={"method.lamb": [0.02, 0.05]},
    base=dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=1))
if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
"""


@dataclass(frozen=True)
class Team:
    """What a member has, a folder with the sweep and the variables; and what only the server knows."""

    folder: Path
    environment: Mapping[str, str]
    bucket: str
    password: str
    database: int  # its port

    def run(self, command: str, *, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        """A command of docs/team.md. Nobody is told the password."""
        words, environment = shlex.split(here(command)), {**self.environment, **more}
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert self.password not in done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> Iterator[Team]:
    folder, home = tmp_path_factory.mktemp("team"), tmp_path_factory.mktemp("home")
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "demo_rectified_lpjepa.py").write_text(SWEEP)
    password, admin, port = secrets.token_hex(12), secrets.token_hex(12), free_port()
    with pytest.MonkeyPatch.context() as patch, postgres(admin) as database:
        s3 = new_bucket(s3_server, patch)
        bucket, options = s3[5:].partition("/")[0], s3.partition("?")[2]
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("JEPA_", "MLFLOW_"))}
        admins = {"PGHOST": "127.0.0.1", "PGPORT": str(database), "PGUSER": "admin", "PGPASSWORD": admin}
        roles = documented('echo "create role').replace("PASSWORD", password).replace("sudo -u postgres ", "")
        asked = environment | admins | {"PGDATABASE": "postgres"}
        subprocess.run(["bash", "-c", roles], env=asked, check=True, timeout=START_S)
        kept = documented("(umask 077").replace("PASSWORD", password).replace(":5432:", f":{database}:")
        subprocess.run(["bash", "-c", kept], env=environment | {"HOME": str(home)}, check=True, timeout=START_S)
        ours = {name: text.replace("BUCKET", bucket).replace("5000", str(port)) for name, text in exported().items()}
        ours["JEPA_STORAGE"] += f"?{options}"
        serve = documented(".venv/bin/mlflow server").replace("5000", str(port)).replace("5432", str(database))
        assert password not in serve
        theirs = environment | {"HOME": str(home), "MLFLOW_S3_ENDPOINT_URL": f"http://{s3_server}"}
        theirs["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = ours.pop("MLFLOW_SERVER_ENABLE_JOB_EXECUTION")
        with mlflow_server(serve.replace("BUCKET", bucket), port, theirs, folder / "server.log"):
            yield Team(folder, environment | ours, bucket, password, database)


def test_a_sweep_runs_through_the_teams_store(team: Team):
    assert re.search(r"ok +storage +s3://.* can be written to", team.run(DOCTOR).stdout)
    first = team.run(LAUNCH).stdout
    assert "2 of 2 cells done before" in team.run(LAUNCH).stdout
    assert "2 finished" in team.run(STATUS).stdout
    table = team.run(TABLE).stdout.strip()
    assert table in first
    files = team.run(EXPORT).stdout.split()
    assert [file.startswith(f"s3://{team.bucket}/jepa/exports/") for file in files] == [True] * 5

    uri = team.environment["MLFLOW_TRACKING_URI"]
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("demo_rectified_lpjepa").experiment_id])
    cells = [run for run in runs if "cell_key" in run.data.tags]
    (own,) = [run for run in runs if "cell_key" not in run.data.tags]
    assert [run.data.tags["status"] for run in cells] == ["finished"] * 2
    text = Path(download_artifacts(run_id=own.info.run_id, artifact_path="table.md", tracking_uri=uri)).read_text()
    assert text.strip() == table
    kept = [info.path for info in storage_path(team.environment["JEPA_STORAGE"].replace("/jepa?", "?")).files()]
    assert any(path.startswith(f"{team.bucket}/artifacts/") and path.endswith("/table.md") for path in kept)
    finals = [path for path in kept if path.endswith("/final.pt")]
    assert sorted(path.split("/")[-2] for path in finals) == sorted(run.data.tags["cell_key"] for run in cells)


def test_the_database_asks_for_its_password_and_nobody_else_has_it(team: Team):
    login = f"host=127.0.0.1 port={team.database} user=mlflow dbname=mlflow"
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(f"{login} password=guessed")
    with closing(psycopg2.connect(f"{login} password={team.password}")) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from tags where key = 'cell_key'")
        assert cursor.fetchone() == (2,)
    dump = ["pg_dump", "-h", "127.0.0.1", "-p", str(team.database), "-U", "mlflow", "mlflow"]
    asked = {**os.environ, "PGPASSWORD": team.password}
    content = subprocess.run(dump, env=asked, capture_output=True, check=True, timeout=START_S)
    assert b"demo_rectified_lpjepa" in content.stdout
    secrets_of_ours = [team.password.encode(), team.environment["AWS_SECRET_ACCESS_KEY"].encode()]
    written = {str(path): path.read_bytes() for path in team.folder.rglob("*") if path.is_file()}
    assert any(name.endswith("server.log") for name in written)
    for name, found in [("the database", content.stdout), *written.items()]:
        assert [secret in found for secret in secrets_of_ours] == [False, False], name


def test_a_database_that_somebody_still_speaks_to_can_be_ended():
    admin = secrets.token_hex(12)
    with postgres(admin) as port:
        client = psycopg2.connect(f"host=127.0.0.1 port={port} user=admin password={admin} dbname=postgres")
    client.close()


def test_who_speaks_to_the_database_itself_is_shown_no_password(team: Team):
    direct = f"postgresql+psycopg2://mlflow:{team.password}@127.0.0.1:{team.database}/mlflow"
    (told,) = [line for line in team.run(DOCTOR, MLFLOW_TRACKING_URI=direct).stdout.splitlines() if " store " in line]
    assert told.startswith("ok ")
    assert f"127.0.0.1:{team.database}/mlflow" in told
    team.run(STATUS, MLFLOW_TRACKING_URI=direct)
    team.run(TABLE, MLFLOW_TRACKING_URI=direct)
