"""ray_session: Ray for one command. A quiet one on this machine, or the cluster that RAY_ADDRESS names."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from jepa_train.paths import results_dir

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 100_000_000  # configs and metrics only; images travel through files

_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # 2 by default: a dead worker is noticed and a lane ends sooner
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # 60 by default: too short for a loaded machine
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process per lane that only spot instances would miss
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # data.path may be relative
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # nobody reads its snapshots, and one that fails ends the sweep
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow is the record
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed cell has no objective
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is a KeyboardInterrupt, so that context managers clean up
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints tables even with verbose=0
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU sees none and trains on the CPU
}
_LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray writes one to ~/.ray; keeps other users of the machine out
}


def ray_dir() -> Path:
    """Where Ray, Train and Tune keep their files."""
    return results_dir() / "ray"


@contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[None]:
    """Ray, up and quiet. On this machine it listens on loopback only, writes under results/ray and leaves no process.

    SIGTERM ends the command like Ctrl-C does: by an exception, so that everything is closed.

    Args:
        num_cpus: CPUs that lanes may use, all of the machine's by default. With RAY_ADDRESS the nodes know theirs.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray._private.worker.print_to_stdstream = _log  # the warnings that raylets push; log_to_driver does not stop them
    with contextlib.ExitStack() as stack:
        if "RAY_ADDRESS" in os.environ:
            stack.callback(ray.shutdown)
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
        else:
            directory = stack.enter_context(_short_path(ray_dir()))
            stack.callback(ray.shutdown)
            _start_local(num_cpus, directory)
        if threading.current_thread() is threading.main_thread():
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _exit))
        yield


def _start_local(num_cpus: int | None, directory: Path) -> None:
    for name, value in _LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Ray turns 127.0.0.1 into the machine's address, unless it takes this for a platform that cannot have clusters.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(directory),
    )


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


def _log(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001 (Ray's signature)
    logger.debug("%s: %s", data["pid"], "\n".join(data["lines"]))


def _exit(signum: int, _: FrameType | None) -> None:
    raise SystemExit(128 + signum)
