"""What the ledger's writes take: into sqlite, and through MLflow's server over a database."""

import collections
import contextlib
import os
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks.head_lanes import Measured
from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.store.experiment import open_experiment
from sweeps.engine.store.mlflow_writer import MlflowWriter
from sweeps.engine.store.offline_queue import Operation

_METRICS = {f"val/metric{number}": 0.5 for number in range(40)}
_START_S = 120.0


def store_rows(stores: Sequence[str], *, cells: int) -> Iterator[Measured]:
    """CPU time of a cell's start, of one epoch of 40 metrics, of ten at once and of its end: means over n cells.

    Args:
        stores: databases that a server is started over, besides an sqlite file.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JEPA_RESULTS"] = folder
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        yield from _written("sqlite", cells, [])
        for database in (f"sqlite:///{folder}/served.db", *stores):
            name = f"mlflow server over {database.partition(':')[0]}"
            with _server(database, Path(folder)) as (uri, processes):
                os.environ["MLFLOW_TRACKING_URI"] = uri
                yield from _written(name, cells, processes)
        os.environ.pop("MLFLOW_TRACKING_URI", None)


def _written(store: str, cells: int, servers: Sequence[psutil.Process]) -> Iterator[Measured]:
    client, experiment = open_experiment("head")
    writer = MlflowWriter(client, experiment.experiment_id, {}, lambda _: None)
    ours: dict[str, float] = collections.defaultdict(float)
    theirs: dict[str, float] = collections.defaultdict(float)
    for cell in range(cells):
        key = f"{time.time_ns():x}{cell:04x}"[-16:]
        for what, operations in _life(key):
            began, served = time.process_time(), _cpu(servers)
            writer.write(key, operations)
            ours[what] += time.process_time() - began
            theirs[what] += _cpu(servers) - served
    for what in ours:
        value = 1000 * ours[what] / cells
        yield Measured(what=f"store, CPU of {what}, driver", at=store, value=value, unit="ms", n=cells)
        if servers:
            value = 1000 * theirs[what] / cells
            yield Measured(what=f"store, CPU of {what}, server", at=store, value=value, unit="ms", n=cells)
    if servers:
        size = sum(one.memory_full_info().uss for one in servers) / 1e6
        yield Measured(what="memory, server", at=f"{store}, {len(servers)} processes", value=size, unit="MB")


def _life(key: str) -> Iterator[tuple[str, list[Operation]]]:
    params = {name: str(value) for name, value in flatten(DIGITS).items()}
    dataset = {"name": "digits", "digest": "builtin", "source_type": "local", "source": ""}
    new = {"label": key, "tags": {"cell_key": key, "role": "cell"}, "params": params, "dataset": dataset}
    yield "a cell's start", [Operation(at=_now(), key=key, new=new, tags={"status": "running"}, status="RUNNING")]
    yield "one epoch", [_epoch(key, 1)]
    yield "ten epochs at once", [_epoch(key, epoch) for epoch in range(2, 12)]
    yield "a cell's end", [Operation(at=_now(), key=key, tags={"status": "finished"}, status="FINISHED")]


def _epoch(key: str, epoch: int) -> Operation:
    tags = {"epoch": str(epoch), "device_seconds": f"{epoch}.0"}
    return Operation(at=_now(), key=key, step=epoch, metrics=_METRICS, tags=tags)


def _now() -> int:
    return int(time.time() * 1000)


def _cpu(servers: Sequence[psutil.Process]) -> float:
    return sum(one.cpu_times().user + one.cpu_times().system for one in servers)


@contextlib.contextmanager
def _server(database: str, folder: Path) -> Iterator[tuple[str, list[psutil.Process]]]:
    """MLflow's server with one worker, as cluster files start it: its address, and all of its processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "server.log"
    with log.open("w") as told:
        command += ["--artifacts-destination", str(folder / "artifacts")]
        process = psutil.Popen(command, env=environment, stdout=told, stderr=told)
    try:
        uri, until = f"http://127.0.0.1:{port}", time.monotonic() + _START_S
        while not _answers(uri):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"the server did not start: {log.read_text()[-300:]}")
            time.sleep(0.2)
        yield uri, [process, *process.children(recursive=True)]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):  # it did not start
            for one in [*process.children(recursive=True), process]:
                one.kill()
        process.wait(10)


def _answers(uri: str) -> bool:
    try:
        urllib.request.urlopen(f"{uri}/health", timeout=5)
    except OSError:
        return False
    return True
