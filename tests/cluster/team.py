"""The servers of docs/team.md: a PostgreSQL and an MLflow server of a test's own, on loopback."""

import os
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
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMANDS = [
    line[2:] for line in (Path(__file__).parents[2] / "docs/team.md").read_text().splitlines() if line.startswith("$ ")
]
BIN = Path(sys.executable).parent
START_S = 600.0
END_S = 120.0
_SEARCH = "/ajax-api/2.0/mlflow/experiments/search?max_results=1"  # answered once the database has its tables


def documented(beginning: str) -> str:
    """The one command of docs/team.md that begins so."""
    (found,) = [command for command in COMMANDS if command.startswith(beginning)]
    return here(found)


def here(command: str) -> str:
    """A command of docs/team.md, with this Python."""
    return command.replace(".venv/bin/", f"{BIN}/")


def exported() -> dict[str, str]:
    """The variables that docs/team.md exports."""
    return dict(line.removeprefix("export ").split("=", 1) for line in COMMANDS if line.startswith("export "))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres(admin: str) -> Iterator[int]:
    """The port of a PostgreSQL, not run as root, which asks for passwords; that of the role `admin` is given."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
    if not found[-1].is_file():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder, user = Path(tempfile.mkdtemp(prefix="jepa-postgres-")), "postgres" if os.geteuid() == 0 else None
    (folder / "password").write_text(admin)
    for path in (folder, folder / "password") if user else ():
        shutil.chown(path, user)
    options = ["-U", "admin", "--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync"]
    quiet = subprocess.DEVNULL
    make = [found[-1], "-D", folder / "data", *options]
    subprocess.run(make, user=user, cwd=folder, check=True, stdout=quiet, timeout=START_S)
    port = free_port()
    serve = [found[-1].with_name("postgres"), "-D", folder / "data", "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
    try:
        answers = lambda: socket.create_connection(("127.0.0.1", port))  # noqa: E731
        with _running(serve, folder / "log", answers, end=signal.SIGINT, user=user):  # SIGTERM waits for its clients
            yield port
    finally:
        shutil.rmtree(folder)


@contextmanager
def mlflow_server(command: str, port: int, environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """The server of this command, once it answers on that port."""

    def ask() -> object:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}{_SEARCH}", timeout=10)

    with _running(shlex.split(command), log, ask, end=signal.SIGTERM, env=environment):
        yield


@contextmanager
def _running(
    command: list, log: Path, ask: Callable[[], object], *, end: signal.Signals, **how: object
) -> Iterator[None]:
    """A server, from its first answer on until the block ends; the signal `end` ends its children, too."""
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=log.parent, stdout=file, stderr=file, **how)
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                ask().close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.2)
        yield
    finally:
        server.send_signal(end)
        try:
            server.wait(END_S)
        finally:
            server.kill()
