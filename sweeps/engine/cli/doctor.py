"""doctor: checks of this machine before sweeps run on it, one line per finding, with the remedy if one is needed.

A check is a function without arguments that yields findings; an error that it raises is a problem. CHECKS, at the end,
lists the checks in the order of printing.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import psutil
import torch
from mlflow.exceptions import MlflowException
from ray.exceptions import RayError

from analysis.store.uri import NothingToShow, file_problem, sqlite_file
from jepa_train.base.errors import ConfigError
from jepa_train.base.security import hidden
from jepa_train.data.facts import facts_of
from jepa_train.data.files.listing import HIDDEN
from jepa_train.data.splits import identify
from jepa_train.storage.paths import results_dir
from jepa_train.storage.storage import storage_dir
from sweeps.engine.cluster.folders import storage_problem
from sweeps.engine.spec.sweep import BestOf, Sweep
from sweeps.engine.store.mlflow_client import TROUBLE, open_client, root_cause
from sweeps.engine.store.provenance import version_of
from sweeps.engine.store.reader import shown_uri, store_uri

_FREE_GB = 5.0  # of disk, below which checkpoints or decoded images may not fit
_FREE_MEMORY_GIB = 4.0


_PROBLEMS = (ConfigError, NothingToShow, MlflowException, RayError, OSError, RuntimeError)  # ray.init raises the last
Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of doctor."""

    level: Level
    name: str
    text: str
    remedy: str = ""


Check = Callable[[], Iterator[Finding]]


def examine(sweeps: Sequence[Sweep], words: Sequence[str]) -> int:
    """Print the findings of all checks and of the sweeps' data. Returns 1 if one of them is a problem, else 0."""
    problems = 0
    for name, check in (CHECKS | {sweep.name: partial(_dataset, sweep, words) for sweep in sweeps}).items():
        for found in _findings(name, check):
            problems += found.level == "problem"
            remedy = f"; {found.remedy}" if found.remedy else ""
            text = f"{found.text}{remedy}".replace("\n", "\\n")  # in a path
            sys.stdout.write(hidden(f"{found.level:<8} {found.name:<13} {text}\n"))
            sys.stdout.flush()
    return 1 if problems else 0


def _findings(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except _PROBLEMS as error:
        yield Finding("problem", name, str(error).partition("\n")[0])


def _python() -> Iterator[Finding]:
    """The Python version, and the packages that this project needs: present, and as new as it needs them."""
    yield Finding("ok", "Python", platform.python_version())
    found = {name: version_of(name) for name in ("jepa-sweeps", "torch", "timm", "ray", "optuna", "mlflow")}
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    wrong = [line for line in check.stdout.splitlines() if line.startswith("jepa-sweeps ")]
    wrong += [f"{name} is not installed" for name, version in found.items() if version == "not installed"]
    text = ", ".join(wrong or (f"{name} {version}" for name, version in found.items()))
    level: Level = "problem" if wrong else "ok"
    yield Finding(level, "packages", text, "pip install -r requirements.lock, then -e ." if wrong else "")


def _machine() -> Iterator[Finding]:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if not torch.cuda.is_available():
        yield Finding("ok", "GPUs", f"none: training runs on the CPU (torch is built for {build})")
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield Finding("ok", f"GPU {number}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB (torch for {build})")
    threads = os.environ.get("OMP_NUM_THREADS") or "not set"
    yield Finding("ok", "CPU", f"{len(os.sched_getaffinity(0))} cores, OMP_NUM_THREADS {threads}")
    free = psutil.virtual_memory().available / 2**30
    yield _enough(free >= _FREE_MEMORY_GIB, "memory", f"{free:.0f} GiB free", "a trial takes 3: end other programs")


def _results() -> Iterator[Finding]:
    """The results folder on this machine: writable, with free space."""
    folder = results_dir()
    there = next(path for path in (folder, *folder.parents) if path.exists())  # a launch makes what is missing
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        yield Finding("problem", "results", f"{folder} cannot be written to", "set JEPA_RESULTS to a folder of yours")
        return
    free = shutil.disk_usage(there).free / 1e9
    remedy = "remove what is not needed, or set JEPA_RESULTS to a larger disk"
    yield _enough(free >= _FREE_GB, "results", f"{folder}: {free:.0f} GB free", remedy)


def _storage() -> Iterator[Finding]:
    """The storage of checkpoints, if it is not the results folder: reachable and writable."""
    if not os.environ.get("JEPA_STORAGE"):
        return
    place = storage_dir()
    if not place.root and not Path(place.key).exists():
        remedy = "mount it if machines share it; otherwise the first sweep makes it"
        yield Finding("warning", "storage", f"{place} does not exist", remedy)
    elif reason := storage_problem(place):
        yield Finding("problem", "storage", reason, "see that it is up, and that this machine has the credentials")
    else:
        yield Finding("ok", "storage", f"{place} can be written to")


def _enough(holds: bool, name: str, text: str, remedy: str) -> Finding:
    return Finding("ok", name, text) if holds else Finding("warning", name, text, remedy)


def _store() -> Iterator[Finding]:
    """The MLflow store, and the metrics that wait for it."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    uri, shown = store_uri(), shown_uri()
    file = sqlite_file(uri)
    if file is not None and not os.path.exists(file):
        yield Finding("ok", "store", f"{shown} does not exist yet: the first sweep makes it")
    elif file is not None and (problem := file_problem(file, writes=True)):
        yield Finding("problem", "store", problem)
    else:
        try:
            open_client(uri)
            yield Finding("ok", "store", shown)
        except TROUBLE as error:
            remedy = "start the server, or unset MLFLOW_TRACKING_URI"
            yield Finding("problem", "store", f"{shown} cannot be used ({root_cause(error)})", remedy)
    waiting = sum(file.stat().st_size for file in (results_dir() / "spool").glob("*.jsonl")) / 1e6
    if waiting:
        remedy = "the next launch of their sweeps writes them"
        yield Finding("warning", "offline queue", f"{waiting:.1f} MB of metrics wait for the store", remedy)


def _ray() -> Iterator[Finding]:
    """Ray's version, and on a cluster its nodes."""
    from sweeps.engine.cluster.nodes import expected_of_nodes, problems_of_nodes
    from sweeps.engine.cluster.session import cluster_address, ray_session

    address = cluster_address()
    if not address:
        yield Finding("ok", "Ray", f"{version_of('ray')}, started on this machine for each launch")
        return
    yield Finding("ok", "Ray", f"{version_of('ray')}, the cluster at {address} answers")
    with ray_session(), expected_of_nodes() as expected:
        for node, problem in problems_of_nodes(expected).items():
            if problem:
                yield Finding("problem", f"node {node}", problem, "update it (ray up CLUSTER.yaml)")
            else:
                yield Finding("ok", f"node {node}", "runs the head's code and sees its storage")


def _dataset(sweep: Sweep, words: Sequence[str]) -> Iterator[Finding]:
    """The data and the encoder of the sweep's base, and the sizes of its cells."""
    from sweeps.engine.plan.plan import checked_cells, resolved_base

    try:
        base = resolved_base(sweep, words)
    except ConfigError as error:
        if not isinstance(sweep.base, BestOf):
            raise
        yield Finding("warning", sweep.name, str(error))
        return
    where = base.data.path or "of its package"
    yield Finding("ok", sweep.name, f"data {base.data.name} {where}, encoder {base.model.encoder}")
    facts = facts_of(*identify(base.data))
    if facts is not None:
        remedy = "docs/sweeps.md, Data, says what becomes of such files"
        yield _enough(not facts.files.skipped and facts.files.unused.keys() <= {HIDDEN}, "images", str(facts), remedy)
    checked_cells(sweep, base)


CHECKS: dict[str, Check] = {
    "Python": _python,
    "machine": _machine,
    "results": _results,
    "storage": _storage,
    "store": _store,
    "Ray": _ray,
}
