"""doctor: checks of this machine before sweeps run on it, one line per finding, with the remedy if one is needed.

A check is a function without arguments that yields findings; CHECKS, at the end, lists them in the order of printing.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlflow
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from jepa_train.base.errors import ConfigError
from jepa_train.base.security import hidden
from jepa_train.storage.paths import cache_dir, results_dir
from jepa_train.storage.storage import StorageError, StoragePath, storage_dir
from sweeps.engine.cluster.folders import storage_problem
from sweeps.engine.spec.sweep import BestOf, Sweep
from sweeps.engine.store.lock import holder_of
from sweeps.engine.store.mlflow_client import open_client
from sweeps.engine.store.reader import shown_uri, store_uri

_ROOT = Path(__file__).resolve().parents[3]
_FREE_GB = 5.0  # of disk, below which checkpoints or decoded images may not fit
_WALK_S = 1.0  # for adding up a folder
_SLOW_S = 0.5  # for one read of the store: each ended cell takes several


@dataclass(frozen=True)
class Finding:
    """One line of doctor."""

    level: Literal["ok", "warning", "problem"]
    name: str
    text: str
    remedy: str = ""


def examine(sweeps: Sequence[Sweep], places: Sequence[str]) -> int:
    """Print the findings of all checks and of the sweeps' data; 1 when one of them is a problem, else 0."""
    problems = 0
    for check in (*CHECKS, *((lambda sweep=sweep: _dataset(sweep, places)) for sweep in sweeps)):
        for found in check():
            problems += found.level == "problem"
            remedy = f"; {found.remedy}" if found.remedy else ""
            sys.stdout.write(hidden(f"{found.level:<8} {found.name:<13} {found.text}{remedy}\n"))
            sys.stdout.flush()
    return 1 if problems else 0


def _python() -> Iterator[Finding]:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    version, asked = platform.python_version(), project["requires-python"]
    fits = version in SpecifierSet(asked)
    yield Finding(
        "ok" if fits else "problem", "Python", version, "" if fits else f"it must be {asked}; make a .venv with it"
    )
    wrong, found = [], []
    for line in project["dependencies"]:
        needed = Requirement(line)
        try:
            have = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is missing ({line})")
            continue
        found.append(f"{needed.name} {have}")
        if not needed.specifier.contains(have, prereleases=True):
            wrong.append(f"{needed.name} is {have}, not {needed.specifier}")
    if wrong:
        yield Finding("problem", "packages", ", ".join(wrong), "pip install -r requirements.lock")
    else:
        shown = ", ".join(name for name in found if name.split()[0] in ("torch", "timm", "ray", "optuna", "mlflow"))
        yield Finding("ok", "packages", f"{shown} and {len(found) - 5} more")


def _torch() -> Iterator[Finding]:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if not torch.cuda.is_available():
        yield Finding("ok", "GPUs", f"none: training runs on the CPU (torch is built for {build})")
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield Finding("ok", f"GPU {number}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB (torch for {build})")


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > cores:
        yield Finding(
            "warning",
            "CPU",
            f"{cores} cores for OMP_NUM_THREADS={threads}",
            f"threads that wait make a run many times slower: set it to {cores} or less",
        )
    else:
        yield Finding("ok", "CPU", f"{cores} cores, OMP_NUM_THREADS {threads or 'not set'}")
    memory = {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo")}
    limit = [int(line) / 2**30 for line in _lines("/sys/fs/cgroup/memory.max") if line.strip().isdigit()]
    total, free = min([memory["MemTotal"], *limit]), memory["MemAvailable"]
    level: Literal["ok", "warning"] = "warning" if free < 4 else "ok"
    remedy = "" if free >= 4 else "a lane takes 2 to 3 GiB: end other programs"
    yield Finding(level, "memory", f"{min(free, total):.0f} of {total:.0f} GiB free", remedy)


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


def _results() -> Iterator[Finding]:
    yield _folder("results", results_dir(), "JEPA_RESULTS")


def _cache() -> Iterator[Finding]:
    """This machine's folder of decoded images and copies of data, where it has one of its own."""
    if os.environ.get("JEPA_CACHE"):
        try:
            yield _folder("cache", cache_dir(), "JEPA_CACHE")
        except ConfigError as error:
            yield Finding("problem", "cache", str(error))


def _folder(name: str, folder: Path, variable: str) -> Finding:
    """A folder on this machine: writable, how full it and its disk are. `variable` names another one."""
    if not _may_be_made(folder):
        return Finding("problem", name, f"{folder} cannot be written to", f"set {variable} to a folder of yours")
    free = shutil.disk_usage(_nearest(folder)).free / 1e9
    level: Literal["ok", "warning"] = "ok" if free >= _FREE_GB else "warning"
    remedy = "" if free >= _FREE_GB else f"remove what is not needed, or set {variable} to a larger disk"
    return Finding(level, name, f"{folder}: {_size(folder)}, {free:.0f} GB free", remedy)


def _storage() -> Iterator[Finding]:
    """The storage: reachable, writable, what is there."""
    try:
        place = storage_dir()
    except ConfigError as error:
        yield Finding("problem", "storage", str(error))
        return
    if not os.environ.get("JEPA_STORAGE"):
        yield Finding("ok", "checkpoints", _size(results_dir() / "checkpoints"))
    elif not place.root and not Path(place.key).exists() and _may_be_made(Path(place.key)):
        remedy = "where machines share it, mount it; else the first sweep makes it"
        yield Finding("warning", "storage", f"{place} is not there", remedy)
    else:
        reason = storage_problem(place)
        remedy = "see that it is up, and that this machine has the credentials" if reason else ""
        yield Finding("problem" if reason else "ok", "storage", reason or f"{place} can be written to", remedy)
        if not reason:
            yield Finding("ok", "checkpoints", _size_in_storage(place / "checkpoints"))


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _may_be_made(folder: Path) -> bool:
    there = _nearest(folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _size(folder: Path) -> str:
    """The files below a folder: how many, how large; a folder of very many is not added up to the end."""
    size = count = 0
    deadline = time.monotonic() + _WALK_S
    for at, _, names in os.walk(folder):
        for name in names:
            size += os.lstat(os.path.join(at, name)).st_size if os.path.lexists(os.path.join(at, name)) else 0
            count += 1
        if time.monotonic() > deadline:
            return f"more than {size / 1e9:.2f} GB in more than {count} files"
    return f"{size / 1e9:.2f} GB in {count} files" if count else "nothing yet"


def _size_in_storage(place: StoragePath) -> str:
    if not place.root:
        return _size(Path(place.key))
    try:
        sizes = [info.size for info in place.files()]
    except OSError as error:
        return f"cannot be listed ({error})"
    return f"{sum(sizes) / 1e9:.2f} GB in {len(sizes)} files" if sizes else "nothing yet"


def _store() -> Iterator[Finding]:
    """The store, holders that are gone, and metrics that wait for the store."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a server that is down: one try
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    uri = store_uri()
    file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if file is not None and not file.is_file():
        yield Finding("ok", "store", f"{shown_uri()} is not there yet: the first sweep makes it")
    else:
        yield from _opened(uri, file)
    waiting = sorted(path for path in (results_dir() / "spool").glob("**/*") if path.is_file())
    if waiting:
        size = sum(path.stat().st_size for path in waiting) / 1e6
        remedy = "the next launch of their sweeps writes them"
        yield Finding("warning", "spool", f"{len(waiting)} files, {size:.1f} MB of metrics wait for the store", remedy)
    else:
        yield Finding("ok", "spool", "empty")


def _opened(uri: str, file: Path | None) -> Iterator[Finding]:
    unwritable, shown = _unwritable(file) if file is not None else "", shown_uri()
    if unwritable:
        remedy = "set JEPA_RESULTS to a folder of yours, or MLFLOW_TRACKING_URI to another store"
        yield Finding("problem", "store", f"{shown} cannot be written to: {unwritable}", remedy)
        return
    try:
        client = open_client(uri)
        began = time.monotonic()
        client.search_experiments(max_results=1)
        seconds = time.monotonic() - began
    except ConfigError as error:
        yield Finding("problem", "store", str(error))
        return
    except MlflowException as error:
        remedy = "start the server, or unset MLFLOW_TRACKING_URI" if file is None else f"mlflow db upgrade {shown}"
        yield Finding("problem", "store", f"{shown} cannot be used: {str(error).partition(chr(10))[0]}", remedy)
        return
    size = f", {file.stat().st_size / 1e6:.1f} MB" if file is not None else ""
    slow = seconds > _SLOW_S
    remedy = "move the store to a faster or nearer disk, or server" if slow else ""
    yield Finding("warning" if slow else "ok", "store", f"{shown}{size}, a read takes {1000 * seconds:.0f} ms", remedy)
    if uri.startswith("http"):
        yield from _server_version(uri)
    yield from _holders(client)


def _unwritable(file: Path) -> str:
    """Why the sqlite file cannot be written to, "" where it can: asks for the write lock and gives it back."""
    if not os.access(file.parent, os.W_OK):
        return f"{file.parent} is read-only"
    if not os.access(file, os.W_OK):
        return "the file is read-only"
    try:
        with closing(sqlite3.connect(file, timeout=2, isolation_level=None)) as connection:
            connection.execute("begin immediate")
            connection.execute("rollback")
    except sqlite3.Error as error:
        return str(error)
    return ""


def _server_version(uri: str) -> Iterator[Finding]:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/version", timeout=3) as response:
            server = response.read(100).decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        yield Finding("warning", "MLflow server", f"does not tell its version ({error})")
        return
    same = server == mlflow.__version__
    remedy = "" if same else "install the same version on both sides"
    text = f"{server}, here {mlflow.__version__}"
    yield Finding("ok" if same else "warning", "MLflow server", text, remedy)


def _holders(client: MlflowClient) -> Iterator[Finding]:
    """Sweeps that a launch runs, and those whose launch died."""
    for experiment in client.search_experiments(max_results=1000):
        tag = experiment.tags.get("sweep.holder", "")
        if not tag or not json.loads(tag):
            continue
        holder = holder_of(experiment.name)
        if holder is not None:
            yield Finding("ok", "running", f"{experiment.name}, by {holder.description}")
        else:
            yield Finding("warning", "left", f"{experiment.name}: its launch is gone", "the next launch takes it over")


def _ray() -> Iterator[Finding]:
    try:
        version = importlib.import_module("ray").__version__
    except ImportError as error:
        yield Finding("problem", "Ray", f"cannot be imported: {error}", "pip install -r requirements.lock")
        return
    from ray.exceptions import RayError

    from sweeps.engine.cluster.session import cluster_address, ray_session

    try:
        address = cluster_address()
    except ConfigError as error:
        yield Finding("problem", "Ray", f"{version}, {error}")
        return
    if not address:
        yield Finding("ok", "Ray", f"{version}, started on this machine for each launch")
        return
    yield Finding("ok", "Ray", f"{version}, the cluster at {address} answers")
    try:
        with ray_session():
            yield from _nodes()
    except (ConfigError, RayError, RuntimeError, ConnectionError) as error:  # whatever ray.init raises
        yield Finding("problem", "Ray", f"the cluster at {address} lets nobody in: {str(error).partition(chr(10))[0]}")


def _nodes() -> Iterator[Finding]:
    """Every node that is up: has it the head's code, and does it see the storage?"""
    from sweeps.engine.cluster.nodes import expected_of_nodes, problems_of_nodes

    with expected_of_nodes() as expected:
        for address, problem in problems_of_nodes(expected).items():
            if problem:
                yield Finding("problem", f"node {address}", problem, "update it (ray up CLUSTER.yaml)")
            else:
                yield Finding("ok", f"node {address}", "has the head's code and sees its storage")


def _cluster_file() -> Iterator[Finding]:
    """Of the cluster whose head this is, or else the one that `ray up` would make."""
    from sweeps.engine.cluster.nodes import BOOTSTRAP

    files = (Path(BOOTSTRAP).expanduser(), Path("cluster.yaml"), _ROOT / "cluster.yaml")
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        yield Finding("ok", "cluster file", "none: sweeps run on this machine")
        return
    yaml = importlib.import_module("yaml")
    try:
        cluster: Any = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        yield Finding("problem", "cluster file", f"{file} is no YAML: {' '.join(str(error).split())}", "mend that line")
        return
    if not isinstance(cluster, dict) or "provider" not in cluster:
        yield Finding("problem", "cluster file", f"{file} has no provider", "see Ray's cluster YAML reference")
        return
    types = list(cluster.get("available_node_types") or {}) or ["the machines of provider local"]
    prices = "with" if "price" in str(cluster.get("metadata") or {}) else "without"
    yield Finding("ok", "cluster file", f"{file}: {', '.join(types)}; {prices} prices in its metadata")


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


CHECKS = [_python, _torch, _machine, _results, _storage, _cache, _store, _ray, _cluster_file]
