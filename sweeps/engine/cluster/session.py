"""ray_session: Ray for one command. It joins a running cluster, or starts a quiet Ray of its own on this machine."""

import atexit
import contextlib
import json
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray

from jepa_train.base.errors import ConfigError
from jepa_train.storage.paths import results_dir
from sweeps.engine.cluster.folders import check_results_folder
from sweeps.engine.cluster.ray_private import (
    address_of_this_machine,
    never_start_unasked,
    on_loopback,
    silence_raylets,
)
from sweeps.engine.sigterm import exit_on_sigterm

START_S = 30.0  # for a start of Ray to end once the session is over
OBJECT_STORE_BYTES = 100_000_000  # configs and metrics only; images travel through files
ROOT = Path(__file__).parents[3]
PACKAGES = ("analysis", "jepa_train", "search_spaces", "sweeps")  # the code that the nodes of a cluster need

_ENVIRONMENT = {
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process per lane: see controller_callback
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",  # which would print into the live view
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # data.path may be relative
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # nobody reads its snapshots, and one that fails ends the sweep
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow is the record
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed cell has no objective
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is a KeyboardInterrupt, so that context managers clean up
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints tables even with verbose=0
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU sees none and trains on the CPU
}
_START_S = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"  # of a lane's workers; 60 by default
_CHECK_S = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"  # for dead workers, notices and ends of lanes; 2 by default
_CLUSTER_ENVIRONMENT = {
    _START_S: "600",  # a machine may have to be found, started and set up first; then it is tried again
    _CHECK_S: "1",  # hundreds of lanes: each check takes 1 ms of this process
}
_WORKER_ENVIRONMENT = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}  # workers of a cluster do not inherit it
_LOCAL_ENVIRONMENT = {
    _START_S: "300",  # the machine may be loaded
    _CHECK_S: "0.2",
    "RAY_gcs_server_port_wait_time_s": "120",  # for the same reason; 30 by default
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # see on_loopback; for the processes that Ray starts
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray writes one to ~/.ray; keeps other users of the machine out
}


def ray_dir() -> Path:
    """Folder of the files of Ray, Train and Tune."""
    return results_dir() / "ray"


def cluster_address() -> str:
    """Address of the cluster that a launch on this machine joins, as host:port; "" if it starts a Ray of its own.

    RAY_ADDRESS names it; otherwise it is the one that `ray start` has begun or joined on this machine, so that a sweep
    on the head of a cluster needs no setting. RAY_ADDRESS=local prevents that.

    Raises:
        ConfigError: it does not answer, or it is no address of Ray's own protocol.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    address = address_of_this_machine() if named in ("", "auto") else named
    if named == "local" or not (address or named):
        return ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ConfigError(
            f"RAY_ADDRESS must be host:port of a cluster's head, or auto where Ray was started, got {named!r}; from "
            "another machine, submit to it: ray submit CLUSTER.yaml FILE, or ray job submit"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ConfigError(
            f"the Ray cluster must answer, got nothing from {address} ({error}); start it again (ray up CLUSTER.yaml), "
            "or set RAY_ADDRESS=local for a Ray of its own"
        ) from error
    return address


def driver_code() -> dict[str, Any]:
    """Runtime environment that gives a cluster's nodes the driver's packages, and the modules beside the sweep file.

    Empty inside `ray job submit --working-dir`, whose folder already is the code of driver and nodes, and for a project
    installed without its checkout.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))  # set by Ray's job manager
    if "working_dir" in (job.get("runtime_env") or {}) or not (ROOT / "pyproject.toml").is_file():
        return {}
    file = getattr(sys.modules["__main__"], "__file__", None)
    beside = Path(file).resolve().parent if file else ROOT / "sweeps"
    if beside == ROOT / "sweeps":  # they are in the packages
        modules = []
    elif beside == Path.home():  # `ray submit` puts the sweep file there, beside the user's own files
        modules = [str(file)]
    else:
        modules = [str(module) for module in beside.glob("*.py")]
    included = [f"!/{package}{below}" for package in PACKAGES for below in ("", "/**")]
    excludes = ["/[!.]*", "/.?*", *included, "__pycache__"]  # "/*" would exclude the root itself
    return {"working_dir": str(ROOT), "excludes": excludes, "py_modules": modules}


@contextmanager
def ray_session(num_cpus: int | None = None, *, wait: bool = True) -> Iterator[Callable[[], str]]:
    """Start Ray, or join a cluster. A Ray of its own listens on loopback only, writes to results/ray, ends completely.

    SIGTERM ends the command like Ctrl-C does: by an exception, so that everything is closed. The environment variables
    are restored at the end: the next session of the process may be of another kind.

    Args:
        num_cpus: CPUs that lanes may use, all of the machine's by default. Ignored on a cluster.
        wait: until Ray is up. Otherwise it starts in the background, while slow libraries are imported.

    Yields:
        A function that waits until Ray is up, and returns the address of the cluster, "" for a Ray of this process.

    Raises:
        ConfigError: see cluster_address; the results cannot be written; or Ray's processes did not start in time.
    """
    if ray.is_initialized():  # by the caller, who also ends it
        yield lambda: ""
        return
    address = cluster_address()
    silence_raylets()
    never_start_unasked()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(_ENVIRONMENT | (_CLUSTER_ENVIRONMENT if address else _LOCAL_ENVIRONMENT)))
        if address:
            runtime_env = {"env_vars": _WORKER_ENVIRONMENT} | driver_code()
            options: dict[str, Any] = {"address": address, "runtime_env": runtime_env}
        else:
            check_results_folder(results_dir())
            options = {
                "address": "local",
                "num_cpus": num_cpus,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                **stack.enter_context(on_loopback(stack.enter_context(_short_path(ray_dir())))),
            }
        catch_sigterm = stack.enter_context(exit_on_sigterm())
        starting = stack.enter_context(_starting(options))

        def ready() -> str:
            try:
                starting.result()
            except Exception as error:
                if type(error) is not Exception:  # Ray raises the plain class where its processes do not answer in time
                    raise
                first = str(error).partition(". ")[0]
                raise ConfigError(
                    f"Ray must start on this machine, got {first!r} at a load of {os.getloadavg()[0]:.0f} on "
                    f"{os.cpu_count()} CPUs; start the command again when the machine has less to do"
                ) from None
            catch_sigterm()  # again: Ray has set a handler of its own
            return address

        if wait:
            ready()
        yield ready


@contextmanager
def _starting(options: Mapping[str, Any]) -> Iterator[Future[object]]:
    """Start Ray in a thread, and end it with the block, at the latest START_S later, whatever keeps the start.

    A start may never end: Ctrl-C in the middle of an import can leave a lock that its thread waits for. The process
    waits neither for the thread nor for its Ray at the exit.
    """
    starting, over = Future[object](), threading.Event()

    def start() -> None:
        try:
            starting.set_result(ray.init(logging_level=logging.ERROR, log_to_driver=False, **options))
        except BaseException as error:  # noqa: BLE001 (it is raised where the result is awaited)
            starting.set_exception(error)
        over.wait()  # Ray's processes die with the thread that has started them

    try:
        threading.Thread(target=start, name="ray-start", daemon=True).start()
        yield starting
    finally:
        try:
            with contextlib.suppress(Exception):
                starting.exception(timeout=START_S)
        finally:  # also after another Ctrl-C
            if starting.done():
                ray.shutdown()
            else:
                atexit.unregister(ray.shutdown)  # it may wait for the thread
                if "_temp_dir" in options:  # else the processes are a cluster's
                    _kill_half_started(options["_temp_dir"])
            over.set()


def _kill_half_started(folder: str) -> None:
    """Kill the processes of a Ray of this process that write below the folder."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if folder in " ".join(child.cmdline()):
                child.kill()


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this process and its children, except those that the user has set."""
    ours = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _short_path(directory: Path) -> Iterator[Path]:
    """A short link to a folder: Ray keeps Unix sockets there, whose paths must stay below 108 bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="jepa-") as home:
            link = Path(home) / "ray"
            link.symlink_to(directory, target_is_directory=True)
            yield link
    finally:
        (directory / "session_latest").unlink(missing_ok=True)  # it leads through the short link
