"""Checks of the cluster files, without a network.

unit/cluster/test_cluster_files.py runs them on the shipped files, and on copies with one mistake each.

Every check takes a file's text and raises where it does not hold.
"""

import copy
import fnmatch
import importlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config

from sweeps.engine.cluster.nodes import _to_come
from sweeps.engine.cluster.resources import Node, Request, room
from sweeps.engine.spec.scale import at_scale
from sweeps.engine.spec.sweep import Sweep

ROOT = Path(__file__).parents[1]
LOCK = dict(
    line.split(" ")[0].split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
)
PYTHONS = SpecifierSet(re.search(r'requires-python = "(.+)"', (ROOT / "pyproject.toml").read_text())[1])
NOTICES = {"aws": "aws", "gcp": "gcp"}  # provider -> the word of python -m sweeps notice
COMMANDS = [
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
]
BESIDES = {  # mounted besides the project, and what needs it
    "~/.ray/auth_token": "RAY_AUTH_MODE=token",
}


def read(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)


def commands(text: str) -> Iterator[str]:
    for name in COMMANDS:
        yield from read(text).get(name, [])


def is_cloud(text: str) -> bool:
    return read(text)["provider"]["type"] != "local"


def schema(text: str) -> None:
    """Ray's own, with its defaults filled in."""
    validate_config(prepare_config(copy.deepcopy(read(text))))


def types(text: str) -> None:
    """The head and the workers agree with each other, with the totals and with the prices."""
    cluster = read(text)
    if not is_cloud(text):
        assert "available_node_types" not in cluster
        assert "prices" not in cluster.get("metadata", {})  # there would be no type that they are of
        return
    kinds, head = cluster["available_node_types"], cluster["head_node_type"]
    workers = {name: about for name, about in kinds.items() if name != head}
    assert workers
    assert kinds[head]["resources"] == {"CPU": 0}
    assert any("--num-cpus=0 " in command for command in cluster["head_start_ray_commands"]), "no CPU of the head"
    assert cluster["metadata"]["prices"].keys() == workers.keys()
    for name, about in workers.items():
        assert about["min_workers"] == 0, f"{name}: from zero"
        assert about["max_workers"] == cluster["max_workers"]
        assert about["resources"]["GPU"] >= 1
        assert about["resources"]["CPU"] >= about["resources"]["GPU"]
        assert 0 < cluster["metadata"]["prices"][name] < 200


def spot(text: str) -> None:
    """Workers can be taken away, the head cannot; the notice is watched for on workers of that cloud."""
    cluster = read(text)
    started = cluster["worker_start_ray_commands"]
    if not is_cloud(text):
        assert not any("notice" in command for command in started)
        return
    spots = {
        name
        for name, about in cluster["available_node_types"].items()
        if "spot" in str(about["node_config"].get("InstanceMarketOptions", "")).lower()
        or about["node_config"].get("scheduling", {}).get("provisioningModel") == "SPOT"
    }
    assert spots == cluster["available_node_types"].keys() - {cluster["head_node_type"]}
    assert started[-1] == f"bash ~/jepa-sweeps/cluster/notice.sh {NOTICES[cluster['provider']['type']]}"
    assert not any("notice" in command for command in cluster["head_start_ray_commands"])
    assert cluster["idle_timeout_minutes"] >= 12  # a node's start and a sweep's longest gap


def nodes(text: str) -> list[Node]:
    """Those that a launch counts on, when only the head is up."""
    prepared = prepare_config(read(text))
    return _to_come(prepared, [{"NodeName": "head", "Resources": {"CPU": 0}}])


def sweeps() -> Iterator[Sweep]:
    """Every sweep, those with scales at lab and paper, which a cluster is for."""
    for file in sorted((ROOT / "sweeps").glob("[a-z]*.py")):
        module = importlib.import_module(f"sweeps.{file.stem}")
        if hasattr(module, "sweep"):
            yield from (at_scale(module.sweep, scale) for scale in ("lab", "paper"))
        else:
            yield module.SWEEP


def fits(found: list[Node]) -> None:
    """Every sweep trains on the GPUs of these nodes, and a trial of one worker uses each of them."""
    for sweep in sweeps():
        gpus = sweep.gpus_per_worker
        request = Request.of(found, workers=sweep.workers, cpus=sweep.cpus_per_worker, gpus=gpus)
        assert request.gpus == 1, sweep.name
        total = int(sum(node["Resources"]["GPU"] for node in found))
        assert room(found, request) == total // sweep.workers, sweep.name


def placement(text: str) -> None:
    if is_cloud(text):
        fits(nodes(text))


def mounts(text: str) -> None:
    """What git knows lies on every node where it is installed from, and everything that is mounted is used."""
    cluster = read(text)
    mounted: Mapping[str, str] = cluster["file_mounts"]
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]  # the clone may belong to another user
    listed = subprocess.run([*git, "ls-files"], capture_output=True, text=True, check=True)
    tracked = {line.split("/")[0] for line in listed.stdout.splitlines()} | {".git"}
    project = {to.removeprefix("~/jepa-sweeps/"): at for to, at in mounted.items() if to.startswith("~/jepa-sweeps/")}
    assert project == {name: name for name in tracked}
    assert mounted.keys() == {f"~/jepa-sweeps/{name}" for name in project} | BESIDES.keys()
    assert any(BESIDES["~/.ray/auth_token"] in command for command in commands(text))
    assert mounted["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert {".venv", "__pycache__"} <= {*cluster["rsync_exclude"]}
    parts = {part for line in listed.stdout.splitlines() for part in line.split("/")} | {".git"}
    left_out = {(word, part) for word in cluster["rsync_exclude"] for part in parts if fnmatch.fnmatch(part, word)}
    assert not left_out  # at any depth; what git misses it calls deleted, and every run dirty


def scripts(text: str) -> None:
    """Every command is a script that bash and shellcheck read; what it runs of the project is there."""
    for command in commands(text):
        check_script(command)
        for path in re.findall(r"~/jepa-sweeps/(\S+)", command):
            assert (ROOT / path).is_file(), command


def check_script(script: str) -> None:
    subprocess.run(["bash", "-n", "-c", script], check=True, capture_output=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: apt-get install shellcheck")
    words = ["shellcheck", "--shell=bash", "--severity=warning", "--exclude=SC1090", "-"]  # a file that is not here
    found = subprocess.run(words, input=script, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{script}\n{found.stdout}"


def quoting(text: str) -> None:
    """A command without quotes loses what comes after ' #'."""
    for key, value in yaml.compose(text, Loader=yaml.SafeLoader).value:
        if key.value in COMMANDS:
            assert [node.value for node in value.value if node.style not in ("'", '"')] == []


def versions(text: str) -> None:
    """What the lock pins is installed from it alone; what else is installed is pinned; the Python is one of ours."""
    told = list(commands(text))
    pinned = [word for command in told if "pip install" in command for word in command.split() if word[0].isalpha()]
    packages = [word for word in pinned if word not in ("install", "pip")]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", word) for word in packages), packages
    assert not {word.split("==")[0] for word in packages} & LOCK.keys()
    python = re.search(r"JEPA_PYTHON=python([\d.]+)'", "\n".join(told))
    assert python is not None
    assert f"{python[1]}.1" in PYTHONS
    assert {*re.findall(r"python(\d[\d.]*)", "\n".join(told))} == {python[1]}  # no other one anywhere
    install = (ROOT / "cluster/install.sh").read_text()
    assert '-r "$project/requirements.lock"' in install
    assert any(command.endswith("bash ~/jepa-sweeps/cluster/install.sh") for command in read(text)["setup_commands"])


def closed(text: str) -> None:
    """Token on before Ray starts; the dashboard and MLflow on loopback; SSH alone comes in; no usage statistics."""
    cluster = read(text)
    assert any("RAY_AUTH_MODE=token" in command for command in cluster["setup_commands"]), "token on"
    head = cluster["head_start_ray_commands"]
    assert head[0] == cluster["worker_start_ray_commands"][0] == "ray stop"
    assert head[1] == "bash ~/jepa-sweeps/cluster/mlflow.sh"
    starts = [command for command in head if "ray start" in command]
    assert len(starts) == 1
    assert {"--dashboard-host=127.0.0.1", "--disable-usage-stats"} <= {*starts[0].split()}
    assert ("RAY_enable_autoscaler_v2=0 ray start" in starts[0]) == (not is_cloud(text))
    assert "0.0.0.0" not in text
    assert cluster["provider"].get("security_group", {}).keys() <= {"GroupName"}  # Ray's own rules: SSH
    for about in cluster.get("available_node_types", {}).values():
        if "InstanceType" in about["node_config"]:
            assert about["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def secretless(text: str) -> None:
    """No key, token or password, and none in a URL. Names of files and of modes are none."""
    for pattern in (
        r"AKIA[0-9A-Z]{8}",
        r"-----BEGIN",
        r"//[^/\s'\"]+:[^/\s'\"]+@",
        r"(?i)(?:password|passwd|secret\w*|access_key\w*|_token)['\"]?\s*[=:]\s*['\"]?(?!~|token\b|required\b)[\w/+]{4,}",
        r"\b[0-9a-f]{32,}\b",
    ):
        assert not re.search(pattern, text), pattern


def filled_in_first(text: str) -> None:
    """What is the user's stands at the top, each with a line that says what it is."""
    top, _, rest = text.partition("# ---- The rest fits as it is")
    assert top.count("# ---- Yours to fill in") == 1
    assert "YOUR-" not in rest
    lines = top.partition("# ---- Yours to fill in")[2].splitlines()
    settings = [number for number, line in enumerate(lines) if re.search(r"export JEPA_|YOUR-|prices:|head_ip", line)]
    assert len(settings) >= 5
    for number in settings:
        assert lines[number - 1].lstrip().startswith("# "), lines[number]


CHECKS: list[Callable[[str], None]] = [
    schema,
    types,
    spot,
    placement,
    mounts,
    scripts,
    quoting,
    versions,
    closed,
    secretless,
    filled_in_first,
]
