"""doctor: is this machine ready to run sweeps? One line per check, with the remedy where something is amiss."""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from jepa_train.base.errors import ConfigError
from jepa_train.base.security import hidden
from jepa_train.storage.base import StorageError
from jepa_train.storage.paths import results_dir
from sweeps.engine.cli.doctor_storage import check_cache, check_storage, size_told
from sweeps.engine.cli.doctor_store import Told, check_store
from sweeps.engine.spec.sweep import BestOf, Sweep

_ROOT = Path(__file__).resolve().parents[3]
_FREE_GB = 5.0  # of disk, below which a sweep's checkpoints may not fit


def examine(sweeps: Sequence[Sweep], places: Sequence[str]) -> int:
    """Print every check; 1 when one of them is a problem, else 0."""
    checks: list[Callable[[], Iterator[Told]]] = [
        _python,
        _torch,
        _machine,
        _results,
        check_storage,
        check_cache,
        check_store,
        _ray,
        _cluster_file,
        *((lambda sweep=sweep: _dataset(sweep, places)) for sweep in sweeps),
    ]
    problems = 0
    for check in checks:
        for told in check():
            problems += told.level == "problem"
            remedy = f"; {told.remedy}" if told.remedy else ""
            sys.stdout.write(hidden(f"{told.level:<8} {told.name:<13} {told.text}{remedy}\n"))
            sys.stdout.flush()
    return 1 if problems else 0


def _python() -> Iterator[Told]:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    version, asked = platform.python_version(), project["requires-python"]
    fits = version in SpecifierSet(asked)
    yield Told(
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
        yield Told("problem", "packages", ", ".join(wrong), "pip install -r requirements.lock")
    else:
        shown = ", ".join(name for name in found if name.split()[0] in ("torch", "timm", "ray", "optuna", "mlflow"))
        yield Told("ok", "packages", f"{shown} and {len(found) - 5} more")


def _torch() -> Iterator[Told]:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if not torch.cuda.is_available():
        yield Told("ok", "GPUs", f"none: training runs on the CPU (torch is built for {build})")
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield Told("ok", f"GPU {number}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB (torch for {build})")


def _machine() -> Iterator[Told]:
    cores = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > cores:
        yield Told(
            "warning",
            "CPU",
            f"{cores} cores for OMP_NUM_THREADS={threads}",
            f"threads that wait make a run many times slower: set it to {cores} or less",
        )
    else:
        yield Told("ok", "CPU", f"{cores} cores, OMP_NUM_THREADS {threads or 'not set'}")
    memory = {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo")}
    limit = [int(line) / 2**30 for line in _lines("/sys/fs/cgroup/memory.max") if line.strip().isdigit()]
    total, free = min([memory["MemTotal"], *limit]), memory["MemAvailable"]
    level: Literal["ok", "warning"] = "warning" if free < 4 else "ok"
    remedy = "" if free >= 4 else "a lane takes 2 to 3 GiB: end other programs"
    yield Told(level, "memory", f"{min(free, total):.0f} of {total:.0f} GiB free", remedy)


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


def _results() -> Iterator[Told]:
    folder = results_dir()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        yield Told("problem", "results", f"{folder} cannot be written to", "set JEPA_RESULTS to a folder of yours")
        return
    free = shutil.disk_usage(there).free / 1e9
    level: Literal["ok", "warning"] = "ok" if free >= _FREE_GB else "warning"
    remedy = "" if free >= _FREE_GB else "remove what is not needed, or set JEPA_RESULTS to a larger disk"
    yield Told(level, "results", f"{folder}: {size_told(folder)}, {free:.0f} GB free", remedy)


def _ray() -> Iterator[Told]:
    try:
        version = importlib.import_module("ray").__version__
    except ImportError as error:
        yield Told("problem", "Ray", f"cannot be imported: {error}", "pip install -r requirements.lock")
        return
    from ray.exceptions import RayError

    from sweeps.engine.cluster.session import cluster_address, ray_session

    try:
        address = cluster_address()
    except ConfigError as error:
        yield Told("problem", "Ray", f"{version}, {error}")
        return
    if not address:
        yield Told("ok", "Ray", f"{version}, started on this machine for each launch")
        return
    yield Told("ok", "Ray", f"{version}, the cluster at {address} answers")
    try:
        with ray_session():
            yield from _nodes()
    except (ConfigError, RayError, RuntimeError, ConnectionError) as error:  # whatever ray.init raises
        yield Told("problem", "Ray", f"the cluster at {address} lets nobody in: {str(error).partition(chr(10))[0]}")


def _nodes() -> Iterator[Told]:
    """Every node that is up: has it the head's code, and does it see the storage?"""
    from sweeps.engine.cluster.nodes import expected_of_nodes, problems_of_nodes

    with expected_of_nodes() as expected:
        for address, problem in problems_of_nodes(expected).items():
            if problem:
                yield Told("problem", f"node {address}", problem, "update it (ray up CLUSTER.yaml)")
            else:
                yield Told("ok", f"node {address}", "has the head's code and sees its storage")


def _cluster_file() -> Iterator[Told]:
    """Of the cluster whose head this is, or else the one that `ray up` would make."""
    from sweeps.engine.cluster.nodes import BOOTSTRAP

    files = (Path(BOOTSTRAP).expanduser(), Path("cluster.yaml"), _ROOT / "cluster.yaml")
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        yield Told("ok", "cluster file", "none: sweeps run on this machine")
        return
    yaml = importlib.import_module("yaml")
    try:
        cluster: Any = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        yield Told("problem", "cluster file", f"{file} is no YAML: {' '.join(str(error).split())}", "mend that line")
        return
    if not isinstance(cluster, dict) or "provider" not in cluster:
        yield Told("problem", "cluster file", f"{file} has no provider", "see Ray's cluster YAML reference")
        return
    types = list(cluster.get("available_node_types") or {}) or ["the machines of provider local"]
    prices = "with" if "price" in str(cluster.get("metadata") or {}) else "without"
    yield Told("ok", "cluster file", f"{file}: {', '.join(types)}; {prices} prices in its metadata")


def _dataset(sweep: Sweep, places: Sequence[str]) -> Iterator[Told]:
    """The data and the encoder of the sweep's base."""
    from sweeps.engine.plan.plan import resolved_base

    try:
        base = resolved_base(sweep, places)
    except (ConfigError, StorageError) as error:
        waits = isinstance(sweep.base, BestOf) and str(error).startswith("base is the best cell")
        yield Told("warning" if waits else "problem", sweep.name, str(error))
        return
    where = base.data.path or "of its package"
    yield Told("ok", sweep.name, f"data {base.data.name} {where}, encoder {base.model.encoder}")
