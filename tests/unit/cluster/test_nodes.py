"""Nodes that may still come, the cluster that a launch joins, the code that it ships, and the check of a node.

Run: python -m pytest tests/unit/cluster/test_nodes.py
"""

import dataclasses
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import yaml
from rich.console import Console
from stores import until

from jepa_train.base.errors import ConfigError
from jepa_train.config.flat import unflatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.cluster import node_check, nodes, session
from sweeps.engine.cluster.resources import Request, room
from sweeps.engine.cluster.session import cluster_address
from sweeps.engine.run import session as run_session
from sweeps.engine.run.session import Session
from sweeps.engine.spec.sweep import Sweep

AWS = {
    "max_workers": 5,
    "provider": {"type": "aws"},
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 4}},
        "gpu_worker": {"resources": {"CPU": 8, "GPU": 1}, "min_workers": 0, "max_workers": 4},
        "big_worker": {"resources": {"CPU": 64, "GPU": 8}, "min_workers": 0, "max_workers": 4},
    },
}
LOCAL = {
    "max_workers": 2,
    "provider": {"type": "local"},
    "head_node_type": "local.cluster.node",
    "available_node_types": {"local.cluster.node": {"resources": {}, "min_workers": 2, "max_workers": 2}},
}


def up(name: str, group: str = "", **resources: float) -> dict[str, Any]:
    return {"NodeName": name, "Alive": True, "Labels": {"ray.io/node-group": group}, "Resources": resources}


HEAD = up("head", "head", CPU=0)


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A head: the autoscaler's settings, the nodes that ray.nodes() lists at each call, and the cluster's age."""
    head = SimpleNamespace(calls=[[HEAD]], age=30.0, settings=lambda text: file.write_text(text))
    file = tmp_path / "bootstrap.yaml"
    monkeypatch.setattr(nodes, "BOOTSTRAP", str(file))
    monkeypatch.setattr(nodes, "cluster_address", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(ray, "nodes", lambda: head.calls.pop(0) if len(head.calls) > 1 else head.calls[0])
    monkeypatch.setattr(nodes.time, "sleep", lambda _: None)
    monkeypatch.setattr(nodes, "head_age_s", lambda: head.age)
    return head


def test_as_many_trials_fit_as_the_cluster_may_come_to_have(head: SimpleNamespace) -> None:
    head.settings(yaml.safe_dump(AWS, sort_keys=False))
    found = nodes.nodes_to_use(pytest.fail)
    assert [node["NodeName"] for node in found] == ["head"] + 4 * ["gpu_worker"] + ["big_worker"]
    assert room(found, Request(workers=2, cpus=4, gpus=1.0, device="GPU")) == (4 + 8) // 2
    head.calls = [[HEAD, *(up(f"w{n}", "gpu_worker", CPU=8, GPU=1) for n in range(3))]]
    found = nodes.nodes_to_use(pytest.fail)
    assert [node["NodeName"] for node in found] == ["head", "w0", "w1", "w2", "gpu_worker", "big_worker"]


def test_machines_that_start_with_the_cluster_are_awaited_while_it_is_young(head: SimpleNamespace) -> None:
    head.settings(yaml.safe_dump(LOCAL))
    workers = [up(name, CPU=1) for name in ("w0", "w1")]
    head.calls = [[HEAD], [HEAD, workers[0]], [HEAD, *workers]]
    lines: list[str] = []
    assert nodes.nodes_to_use(lines.append) == [HEAD, *workers]
    head.calls, head.age = [[HEAD]], nodes.ARRIVAL_S
    assert nodes.nodes_to_use(lines.append) == [HEAD]
    late = "2 of the cluster's machines have not come up yet; going on without them"
    assert lines == ["waiting for 2 of the cluster's machines", late]


@pytest.mark.parametrize("named", ["", "auto", "ADDRESS"])
def test_a_launch_joins_the_ray_of_this_machine_or_of_the_address(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(session, "address_of_this_machine", lambda: "" if named == "ADDRESS" else address)
        monkeypatch.setenv("RAY_ADDRESS", named.replace("ADDRESS", address))
        assert cluster_address() == address
    with pytest.raises(ConfigError, match=f"^the Ray cluster must answer, got nothing from {address}.*=local"):
        cluster_address()
    monkeypatch.setattr(session, "address_of_this_machine", lambda: "")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address() == ""


@pytest.mark.parametrize("address", ["auto", "ray://head:10001", "head"])
def test_an_address_of_no_cluster_is_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "address_of_this_machine", lambda: "")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=f"must be host:port [^\n]+, got '{address}'; [^\n]+ray submit[^\n]+$"):
        cluster_address()


def test_a_cluster_gets_the_packages_and_the_sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").touch()
    main = SimpleNamespace(__file__=str(tmp_path / "mine.py"))
    monkeypatch.setitem(session.sys.modules, "__main__", main)
    code = session.driver_code()
    assert (code["working_dir"], code["py_modules"]) == (str(session.ROOT), [str(tmp_path / "mine.py")])
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"working_dir": "gcs://x.zip"}}))
    assert session.driver_code() == {}, "Ray refuses a second working_dir"


def test_a_node_is_checked_for_versions_storage_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, elsewhere, host = tmp_path / "shared", tmp_path / "elsewhere", socket.gethostname()
    monkeypatch.setenv("JEPA_STORAGE", str(shared))
    with nodes.expected_of_nodes() as expected:
        assert node_check.problem(expected) == ""
        other = dataclasses.replace(expected, versions={**expected.versions, "timm": "1.0"})
        installed = importlib.metadata.version("timm")
        assert node_check.problem(other) == f"{host} has timm {installed} instead of 1.0"
        shared.rename(elsewhere)  # as where it is not mounted
        assert node_check.problem(expected) == f"{host} cannot use the storage: {shared} is another folder here"
        assert not shared.exists(), "it is not made where it is not mounted"
        elsewhere.rename(shared)
        missing = dataclasses.replace(expected, data="~/data/none")
        assert node_check.problem(missing).startswith(f"{host} has no data.path '~/data/none'")
    assert list(shared.iterdir()) == []


def test_a_launch_on_a_cluster_refuses_relative_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(**changes: str) -> None:
        base = unflatten(changes, base=DIGITS)
        launch = Session(Console(quiet=True), lambda _: None, lambda: "10.0.0.1:6379")
        plan: Any = SimpleNamespace(sweep=Sweep(name="study", purpose="", base=base), base=base)
        launch.prepare(plan)

    monkeypatch.setattr(run_session, "expected_of_nodes", nullcontext)
    monkeypatch.setattr(run_session, "nodes_to_use", lambda _: sys.exit("accepted"))
    images = {"data.name": "image_folder", "data.path": "/nfs/c"}
    for key, changes, given in (
        ("data.path", images | {"data.path": "data/birds"}, "data/birds"),
        ("model.weights", {"model.weights": "runs/first/final.pt"}, "runs/first/final.pt"),
        ("probe.transfer=pets", images | {"probe.transfer": "pets=data/pets"}, "data/pets"),
    ):
        with pytest.raises(ConfigError) as error:
            prepare(**changes)
        assert str(error.value) == (
            f"{key} must be absolute on a cluster, whose workers run in another folder, got {given!r}; "
            f"write {key}={Path(given).absolute()}, where every machine has it, or a URL"
        )
    for changes in (
        {"data.name": "digits"},
        {"data.name": "cifar10", "data.path": "/nfs/c"},
        {"data.name": "cifar10", "data.path": "s3://b/c"},
        {"model.weights": "a1_in1k"},
        {"model.weights": "s3://b/final.pt"},
    ):
        with pytest.raises(SystemExit, match="accepted"):
            prepare(**changes)


def test_a_start_that_never_ends_holds_no_session_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-C in the middle of an import whose lock the start waits for. What has started is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def init(*, _temp_dir: str, **_: object) -> None:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", _temp_dir]))
        threading.Event().wait()

    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    monkeypatch.setattr(session, "cluster_address", lambda: "")
    monkeypatch.setattr(session, "START_S", 0.1)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("the start holds Ray's lock"))

    def launch() -> None:
        with session.ray_session(wait=False):
            until(lambda: started)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch()
    assert started[0].wait(60) == -signal.SIGKILL


def test_a_start_that_takes_too_long_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    monkeypatch.setattr(session, "cluster_address", lambda: "")
    monkeypatch.setattr(ray, "init", init)
    rule = r"^Ray must start on this machine, got 'The current node timed out during startup' at a load of \d+ on \d+ C"
    with pytest.raises(ConfigError, match=rule), session.ray_session():
        pass


@pytest.mark.parametrize("address", ["", "10.0.0.1:6379"])
def test_a_session_restores_the_environment(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local session checks its lanes more often: one on a cluster may follow in the process."""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    seen: dict[str, Any] = {}
    monkeypatch.setattr(session, "cluster_address", lambda: address)
    monkeypatch.setattr(ray, "init", lambda **options: seen.update(os.environ | options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_TRAIN_METRICS_ENABLED", "1")
    before = dict(os.environ)
    with session.ray_session():
        pass
    assert seen["RAY_TRAIN_METRICS_ENABLED"] == "1", "the user's setting stays"
    assert ("RAY_AUTH_TOKEN" in seen) == ("runtime_env" not in seen) == (address == "")
    assert seen["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == ("1" if address else "0.2")
    assert dict(os.environ) == before
