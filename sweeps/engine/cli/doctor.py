"""doctor: checks of this machine before sweeps run on it, one line per finding, with the remedy if one is needed.

A check is a function without arguments that yields findings; CHECKS, at the end, lists them in the order of printing.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch
from mlflow.exceptions import MlflowException
from packaging.requirements import Requirement

from analysis.store.uri import sqlite_file
from jepa_train.base.errors import ConfigError
from jepa_train.base.security import hidden
from jepa_train.data.facts import facts_of
from jepa_train.data.files.listing import HIDDEN
from jepa_train.data.splits import identify
from jepa_train.storage.paths import results_dir
from jepa_train.storage.storage import StorageError, storage_dir
from sweeps.engine.cluster.folders import storage_problem
from sweeps.engine.spec.sweep import BestOf, Sweep
from sweeps.engine.store.mlflow_client import open_client
from sweeps.engine.store.reader import shown_uri, store_uri

_FREE_GB = 5.0  # of disk, below which checkpoints or decoded images may not fit
_FREE_MEMORY_GIB = 4.0


@dataclass(frozen=True)
class Finding:
    """One line of doctor."""

    level: Literal["ok", "warning", "problem"]
    name: str
    text: str
    remedy: str = ""


def examine(sweeps: Sequence[Sweep], places: Sequence[str]) -> int:
    """Print the findings of all checks and of the sweeps' data. Returns 1 if one of them is a problem, else 0."""
    problems = 0
    for check in (*CHECKS, *((lambda sweep=sweep: _dataset(sweep, places)) for sweep in sweeps)):
        for found in check():
            problems += found.level == "problem"
            remedy = f"; {found.remedy}" if found.remedy else ""
            sys.stdout.write(hidden(f"{found.level:<8} {found.name:<13} {found.text}{remedy}\n"))
            sys.stdout.flush()
    return 1 if problems else 0


def _python() -> Iterator[Finding]:
    try:
        project = importlib.metadata.metadata("jepa-sweeps")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("problem", "packages", "jepa-sweeps is not installed", "pip install -e .")
        return
    yield Finding("ok", "Python", platform.python_version())
    wrong, found = [], {}
    for needed in map(Requirement, project.get_all("Requires-Dist") or ()):
        if needed.marker is not None:  # of an extra
            continue
        try:
            found[needed.name] = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(found[needed.name], prereleases=True):
            wrong.append(f"{needed.name} is {found[needed.name]}, not {needed.specifier}")
    if wrong:
        yield Finding("problem", "packages", ", ".join(wrong), "pip install -r requirements.lock")
    else:
        main = ("torch", "timm", "ray", "optuna", "mlflow")
        yield Finding("ok", "packages", ", ".join(f"{name} {found[name]}" for name in main))


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
    if not _may_be_made(folder):
        yield Finding("problem", "results", f"{folder} cannot be written to", "set JEPA_RESULTS to a folder of yours")
        return
    free = shutil.disk_usage(_nearest(folder)).free / 1e9
    remedy = "remove what is not needed, or set JEPA_RESULTS to a larger disk"
    yield _enough(free >= _FREE_GB, "results", f"{folder}: {free:.0f} GB free", remedy)


def _storage() -> Iterator[Finding]:
    """The storage of checkpoints, if it is not the results folder: reachable and writable."""
    if not os.environ.get("JEPA_STORAGE"):
        return
    try:
        place = storage_dir()
    except ConfigError as error:
        yield Finding("problem", "storage", str(error))
        return
    folder = None if place.root else Path(place.key)
    if folder is not None and not folder.exists() and _may_be_made(folder):
        remedy = "mount it if machines share it; otherwise the first sweep makes it"
        yield Finding("warning", "storage", f"{place} does not exist", remedy)
    elif reason := storage_problem(place):
        yield Finding("problem", "storage", reason, "see that it is up, and that this machine has the credentials")
    else:
        yield Finding("ok", "storage", f"{place} can be written to")


def _enough(holds: bool, name: str, text: str, remedy: str) -> Finding:
    return Finding("ok", name, text) if holds else Finding("warning", name, text, remedy)


def _nearest(folder: Path) -> Path:
    """The folder, or the first existing one above it."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _may_be_made(folder: Path) -> bool:
    there = _nearest(folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _store() -> Iterator[Finding]:
    """The MLflow store, and the metrics that wait for it."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    uri, shown = store_uri(), shown_uri()
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        yield Finding("ok", "store", f"{shown} does not exist yet: the first sweep makes it")
    else:
        try:
            open_client(uri)
            yield Finding("ok", "store", shown)
        except ConfigError as error:
            yield Finding("problem", "store", str(error))
        except MlflowException as error:
            remedy = "start the server, or unset MLFLOW_TRACKING_URI" if file is None else f"mlflow db upgrade {shown}"
            yield Finding("problem", "store", f"{shown} cannot be used: {str(error).partition(chr(10))[0]}", remedy)
    waiting = sum(file.stat().st_size for file in (results_dir() / "spool").glob("*.jsonl")) / 1e6
    if waiting:
        remedy = "the next launch of their sweeps writes them"
        yield Finding("warning", "offline queue", f"{waiting:.1f} MB of metrics wait for the store", remedy)


def _ray() -> Iterator[Finding]:
    import ray
    from ray.exceptions import RayError

    from sweeps.engine.cluster.nodes import expected_of_nodes, problems_of_nodes
    from sweeps.engine.cluster.session import cluster_address, ray_session

    try:
        address = cluster_address()
    except ConfigError as error:
        yield Finding("problem", "Ray", f"{ray.__version__}, {error}")
        return
    if not address:
        yield Finding("ok", "Ray", f"{ray.__version__}, started on this machine for each launch")
        return
    yield Finding("ok", "Ray", f"{ray.__version__}, the cluster at {address} answers")
    try:
        with ray_session(), expected_of_nodes() as expected:
            for node, problem in problems_of_nodes(expected).items():
                if problem:
                    yield Finding("problem", f"node {node}", problem, "update it (ray up CLUSTER.yaml)")
                else:
                    yield Finding("ok", f"node {node}", "runs the head's code and sees its storage")
    except (ConfigError, RayError, RuntimeError, ConnectionError) as error:  # as ray.init raises
        yield Finding("problem", "Ray", f"the cluster at {address} lets nobody in: {str(error).partition(chr(10))[0]}")


def _dataset(sweep: Sweep, places: Sequence[str]) -> Iterator[Finding]:
    """The data and the encoder of the sweep's base."""
    from sweeps.engine.plan.plan import resolved_base

    try:
        base = resolved_base(sweep, places)
    except (ConfigError, StorageError) as error:
        waits = isinstance(sweep.base, BestOf) and str(error).startswith("base is the best cell")
        yield Finding("warning" if waits else "problem", sweep.name, str(error))
        return
    where = base.data.path or "of its package"
    yield Finding("ok", sweep.name, f"data {base.data.name} {where}, encoder {base.model.encoder}")
    facts = facts_of(*identify(base.data))
    if facts is not None:
        remedy = "docs/sweeps.md, Data, says what becomes of such files"
        yield _enough(not facts.skipped and facts.unused.keys() <= {HIDDEN}, "images", str(facts), remedy)


CHECKS = [_python, _machine, _results, _storage, _store, _ray]
