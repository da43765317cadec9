"""Checks of the cluster files, without a network. Each takes a file's text and raises where it does not hold.

unit/cluster/test_cluster_files.py runs them on the shipped files, and on copies with one mistake each.
"""

import copy
import fnmatch
import importlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config

from sweeps.engine.cluster.resources import Node, Request, room
from sweeps.engine.spec.scale import at_scale

ROOT = Path(__file__).parents[1]
LOCK = dict(
    line.split(" ")[0].split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
)
PYTHONS = SpecifierSet(re.search(r'requires-python = "(.+)"', (ROOT / "pyproject.toml").read_text())[1])


def commands(text: str) -> Iterator[str]:
    for name, lines in yaml.safe_load(text).items():
        if name.endswith("_commands"):
            yield from lines


def schema(text: str) -> None:
    """Ray's own validation, with its defaults filled in."""
    validate_config(prepare_config(copy.deepcopy(yaml.safe_load(text))))


def types(text: str) -> None:
    """In a cloud: a head without trials, and spot workers with GPUs and prices, from none to the limit."""
    cluster = yaml.safe_load(text)
    if (cloud := cluster["provider"]["type"]) == "local":
        return
    workers = dict(cluster["available_node_types"])
    assert workers.pop(cluster["head_node_type"])["resources"] == {"CPU": 0}
    assert any("--num-cpus=0 " in command for command in cluster["head_start_ray_commands"]), "no CPU of the head"
    assert cluster["metadata"]["prices"].keys() == workers.keys()
    nodes: list[Node] = []
    for name, settings in workers.items():
        assert (settings["min_workers"], settings["max_workers"]) == (0, cluster["max_workers"])
        assert re.search("(?i)spot", str(settings["node_config"]))
        nodes += [{"NodeName": name, "Resources": settings["resources"]}] * settings["max_workers"]
    fits(nodes)
    assert cluster["worker_start_ray_commands"][-1] == f"bash ~/jepa-sweeps/cluster/notice.sh {cloud}"
    assert cluster["idle_timeout_minutes"] >= 12  # a node's start and a sweep's longest gap


def fits(nodes: list[Node]) -> None:
    """Every sweep, those with scales at lab and paper, trains on these nodes, and uses each of their GPUs."""
    gpus = int(sum(node["Resources"]["GPU"] for node in nodes))
    for file in sorted((ROOT / "sweeps").glob("[a-z]*.py")):
        module = importlib.import_module(f"sweeps.{file.stem}")
        scaled = hasattr(module, "sweep")
        for sweep in [at_scale(module.sweep, scale) for scale in ("lab", "paper")] if scaled else [module.SWEEP]:
            request = Request.of(nodes, workers=sweep.workers, cpus=sweep.cpus_per_worker, gpus=1)
            assert room(nodes, request) == gpus // sweep.workers, sweep.name


def mounts(text: str) -> None:
    """Every node gets what git knows, complete: a file that git misses makes every run dirty."""
    cluster = yaml.safe_load(text)
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files"]  # the clone may belong to another user
    tracked = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    project = {f"~/jepa-sweeps/{name}": name for name in {line.split("/")[0] for line in tracked} | {".git"}}
    assert cluster["file_mounts"] == project | {"~/.ray/auth_token": "~/.ray/auth_token"}
    excluded = set(cluster["rsync_exclude"])
    assert {".venv", "__pycache__"} <= excluded
    parts = {part for line in tracked for part in line.split("/")} | {".git"}
    assert not [part for part in parts for word in excluded if fnmatch.fnmatch(part, word)]


def scripts(text: str) -> None:
    """Every command passes bash and shellcheck; the project's scripts that it runs exist."""
    for command in commands(text):
        check_script(command)
        for path in re.findall(r"~/jepa-sweeps/(\S+)", command):
            assert (ROOT / path).is_file(), command


def check_script(script: str) -> None:
    subprocess.run(["bash", "-n", "-c", script], check=True, capture_output=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: apt-get install shellcheck")
    words = ["shellcheck", "--shell=bash", "--severity=warning", "--exclude=SC1090", "-"]
    found = subprocess.run(words, input=script, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{script}\n{found.stdout}"


def closed(text: str) -> None:
    """Ray asks for the token; the dashboard and MLflow listen on loopback; no secret stands in the file."""
    cluster = yaml.safe_load(text)
    assert any("RAY_AUTH_MODE=token" in command for command in cluster["setup_commands"]), "token on"
    stop, mlflow, start = cluster["head_start_ray_commands"]
    assert stop == cluster["worker_start_ray_commands"][0] == "ray stop"
    assert mlflow == "bash ~/jepa-sweeps/cluster/mlflow.sh"
    assert {"--dashboard-host=127.0.0.1", "--disable-usage-stats"} <= set(start.split())
    assert ("RAY_enable_autoscaler_v2=0 " in start) == (cluster["provider"]["type"] == "local")
    assert "0.0.0.0" not in text
    secretless(text)


def secretless(text: str) -> None:
    for pattern in (r"AKIA[0-9A-Z]{8}", r"-----BEGIN", r"//[^/\s'\"]+:[^/\s'\"]+@", r"\b[0-9a-f]{32,}\b"):
        assert not re.search(pattern, text), pattern


CHECKS: list[Callable[[str], Any]] = [schema, types, mounts, scripts, closed]
