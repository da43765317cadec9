"""ray_session: Ray for one command. The cluster that there is, or else a quiet one of its own on this machine."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from jepa_train.base.errors import ConfigError
from jepa_train.storage.paths import results_dir
from sweeps.engine.cluster.folders import check_results_folder
from sweeps.engine.cluster.ray_private import address_of_this_machine, on_loopback, silence_raylets

OBJECT_STORE_BYTES = 100_000_000  # configs and metrics only; images travel through files

_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # 2 by default: a dead worker is noticed and a lane ends sooner
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # data.path may be relative
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # nobody reads its snapshots, and one that fails ends the sweep
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow is the record
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed cell has no objective
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is a KeyboardInterrupt, so that context managers clean up
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints tables even with verbose=0
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU sees none and trains on the CPU
}
_START_S = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"  # of a lane's workers; 60 by default
_CLUSTER_ENVIRONMENT = {
    _START_S: "600",  # a machine may have to be found, started and set up first; then it is tried again
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",  # 5 by default; of the 30 s to 2 min that a notice gives
}
_WORKER_ENVIRONMENT = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}  # which workers of a cluster do not have from here
_LOCAL_ENVIRONMENT = {
    _START_S: "300",  # the machine may be loaded
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process per lane that only machines of a cluster would miss
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # see on_loopback; for the processes that Ray starts
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray writes one to ~/.ray; keeps other users of the machine out
}


def ray_dir() -> Path:
    """Where Ray, Train and Tune keep their files."""
    return results_dir() / "ray"


def cluster_address() -> str:
    """The cluster that a launch on this machine joins, as host:port; "" where it starts a Ray of its own.

    That is the one that RAY_ADDRESS names, or else the one that `ray start` has begun or joined here: on the head of a
    cluster a sweep needs no word of it. RAY_ADDRESS=local keeps a launch away from it.

    Raises:
        ConfigError: it does not answer, or it is no address of Ray's own protocol.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    address = "" if named == "local" else named if named not in ("", "auto") else address_of_this_machine()
    remedy = "start it again (ray up CLUSTER.yaml), or set RAY_ADDRESS=local for a Ray of its own"
    if not address and named == "auto":
        raise ConfigError(f"RAY_ADDRESS=auto needs a Ray that was started on this machine, got none; {remedy}")
    host, _, port = address.rpartition(":")
    if address and (not host or not port.isdigit() or "/" in host):
        raise ConfigError(
            f"RAY_ADDRESS must be host:port of a cluster's head, got {address!r}; from another machine, submit to it: "
            "ray submit CLUSTER.yaml FILE, or ray job submit"
        )
    if address:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            whose = "RAY_ADDRESS" if named not in ("", "auto") else "the Ray that was started on this machine"
            raise ConfigError(f"{whose} must answer, got nothing from {address} ({error}); {remedy}") from error
    return address


@contextmanager
def ray_session(num_cpus: int | None = None, *, wait: bool = True) -> Iterator[Callable[[], str]]:
    """Ray for the block, quiet. On this machine it listens on loopback only, writes under results/ray and leaves no
    process.

    SIGTERM ends the command like Ctrl-C does: by an exception, so that everything is closed. What Ray is told through
    the environment is taken back at the end: the next session of the process may be of another kind.

    Args:
        num_cpus: CPUs that lanes may use, all of the machine's by default. A cluster's nodes know theirs.
        wait: until Ray is up. Otherwise it starts in the background, while slow libraries are imported.

    Yields:
        A function that waits until Ray is up, and returns the address of the cluster, "" for a Ray of this process.

    Raises:
        ConfigError: see cluster_address; or the results cannot be written.
    """
    if ray.is_initialized():  # by the caller, who also ends it
        yield lambda: ""
        return
    address = cluster_address()
    silence_raylets()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(_ENVIRONMENT | (_CLUSTER_ENVIRONMENT if address else _LOCAL_ENVIRONMENT)))
        options: dict[str, Any] = {"address": address, "runtime_env": {"env_vars": _WORKER_ENVIRONMENT}}
        if not address:
            check_results_folder(results_dir())
            options = {
                "address": "local",
                "num_cpus": num_cpus,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                **stack.enter_context(on_loopback(stack.enter_context(_short_path(ray_dir())))),
            }
        stack.callback(ray.shutdown)
        background = stack.enter_context(ThreadPoolExecutor(1, "ray-start"))  # leaving it waits for its thread
        starting = background.submit(ray.init, logging_level=logging.ERROR, log_to_driver=False, **options)

        def ready() -> str:
            starting.result()
            return address

        if wait:
            ready()
        if threading.current_thread() is threading.main_thread():
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _exit))
        yield ready


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Variables for this process and those that it starts, but for the ones that somebody has set."""
    ours = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _short_path(directory: Path) -> Iterator[Path]:
    """A short name for a folder: Ray keeps Unix sockets there, whose paths must stay below 108 bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="jepa-"))
    try:
        link = home / "ray"
        link.symlink_to(directory, target_is_directory=True)
        yield link
    finally:
        shutil.rmtree(home)
        (directory / "session_latest").unlink(missing_ok=True)  # it leads through the short name


def _exit(signum: int, _: FrameType | None) -> None:
    raise SystemExit(128 + signum)
