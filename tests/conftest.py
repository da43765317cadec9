"""Fixtures of several test files: empty and filled MLflow stores, one Ray session, an S3 server.

Run: python -m pytest FILE, or everything with `make test` and `make test-slow`.
"""

import contextlib
import importlib
import importlib.util
import logging
import os
import shutil
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from xdist.scheduler import LoadFileScheduling

pytest.register_assert_rewrite("cluster_checks")  # otherwise its failed assertions show no values

TESTS = Path(__file__).parent
MARKED = ("integration", "slow")
LONGEST = ("test_readme.py", "test_chaos.py")  # of the slow tests
RAY = contextlib.ExitStack()  # holds the Ray session of this process

for name in ("no_proxy", "NO_PROXY"):  # servers of the tests are on loopback
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))
os.environ["RAY_ADDRESS"] = "local"  # never join a cluster that runs on this machine
os.environ["OMP_NUM_THREADS"] = "1"  # also for Ray's workers: threads that wait for each other crawl on busy cores
if not Path("/dev/nvidiactl").exists():  # kernels run on the CPU; read when Triton is imported, by a conftest.py below
    os.environ["TRITON_INTERPRET"] = "1"
os.environ["RAY_gcs_server_port_wait_time_s"] = "120"  # noqa: SIM112 (Ray's name); clusters that tests start; was 30
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: Ray's workers would wait for all other tests


def pytest_configure(config: pytest.Config) -> None:
    """Prepare torch in processes that run tests; xdist's controller, which does not, starts faster without it."""
    if not config.getoption("numprocesses", None):
        torch = importlib.import_module("torch")
        torch.set_num_threads(1)  # two workers share two cores; results do not depend on the machine


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Distribute tests by file, with all files that use `shared_ray` on one worker."""

    class OneRaySession(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if "shared_ray" in (config.rootpath / file).read_text() else file

    return OneRaySession(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by folder, and sort them: those that use Ray, long files and integration tests start first."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED:
            item.add_marker(folder)
    items.sort(
        key=lambda item: (
            not uses_ray(item),
            item.path.name not in LONGEST,
            item.get_closest_marker("integration") is None,
        )
    )


def uses_ray(item: pytest.Item) -> bool:
    return "shared_ray" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """End the Ray session after the last test that uses it: other tests replace parts of Ray, or expect none."""
    try:
        return (yield)
    finally:
        if nextitem is None or (nextitem.path != item.path and not uses_ray(nextitem)):
            RAY.close()


@pytest.fixture(scope="session")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Ray session with two CPUs, on loopback, for all tests that ask for it. Launches of a test use it.

    Returns:
        The results folder of the session. Processes that Ray starts see it as JEPA_RESULTS, whatever a test sets.
    """
    from sweeps.engine.cluster.session import ray_session

    results = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JEPA_RESULTS", str(results))
        RAY.enter_context(ray_session(num_cpus=2))
    return results


@pytest.fixture(scope="module", autouse=True)
def _same_environment() -> Iterator[None]:
    """Restore the environment after each file, except for the variables of the Ray session."""
    before = dict(os.environ)
    yield
    ray = {name: text for name, text in os.environ.items() if name.startswith(("RAY_", "TUNE_"))}
    os.environ.clear()
    os.environ.update(before | ray)


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Restore torch's number of threads, which changes the last bits of results."""
    import torch

    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def empty_store(pytestconfig: pytest.Config) -> Path:
    """File of an empty store, to be copied. MLflow's migrations take seconds, so it is kept between sessions."""
    import mlflow

    logging.getLogger("alembic").setLevel(logging.ERROR)
    folder = pytestconfig.cache.mkdir("stores")
    file = folder / f"mlflow-{mlflow.__version__}.db"
    with FileLock(f"{file}.lock"):
        if not file.is_file():
            part = file.with_suffix(".part")
            part.unlink(missing_ok=True)
            mlflow.MlflowClient(f"sqlite:///{part}").search_experiments()
            part.replace(file)
    return file


@pytest.fixture(scope="session")
def template(empty_store: Path) -> bytes:
    """An empty store, as bytes."""
    return empty_store.read_bytes()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    """URI of a store with the demo's sweeps and cells in every state; read-only. One worker fills it for all."""
    import stores

    folder = tmp_path_factory.getbasetemp()
    file = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "store.db"
    with FileLock(f"{file}.lock"):
        if not file.is_file():
            part = file.with_suffix(".part")
            shutil.copyfile(empty_store, part)
            stores.fill(f"sqlite:///{part}")
            part.replace(file)
    return f"sqlite:///{file}"


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of exports of the papers' sweeps at the scale mini; read-only."""
    import paper_store

    folder = tmp_path_factory.mktemp("papers")
    paper_store.fill(folder)
    return str(folder)


@pytest.fixture
def results(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of this test, with an empty store."""
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "mlflow.db")
    monkeypatch.setenv("JEPA_RESULTS", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """host:port of an S3 server (moto) in this process, on loopback."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    starting = threading.Thread(target=server.start, daemon=True)  # never returns if the server cannot start
    starting.start()
    starting.join(timeout=120)
    assert not starting.is_alive()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of a folder in a new bucket; this process and its children have the credentials."""
    from buckets import new_bucket

    if "JEPA_RESULTS" not in os.environ:  # the cache of copies is there
        monkeypatch.setenv("JEPA_RESULTS", str(tmp_path_factory.mktemp("results")))
    return new_bucket(s3_server, monkeypatch)


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement finds six minutes per epoch for every cell, without Ray."""
    from sweeps.engine.run import price
    from sweeps.engine.run.estimate import Estimate

    monkeypatch.setattr(price, "measured", lambda *_: Estimate(360.0, "measured"))
