"""The nodes of a cluster: those that may still come, which cluster a launch joins, and whether its machines are fit."""

import contextlib
import dataclasses
import importlib.metadata
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import yaml

from jepa_train.base.errors import ConfigError
from sweeps.engine.cluster import node_check, nodes, ray_private, session
from sweeps.engine.cluster.resources import Request, room
from sweeps.engine.cluster.session import cluster_address

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
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A head with its autoscaler's file, and what ray.nodes() says there."""
    facts: dict[str, Any] = {"spec": AWS, "nodes": [HEAD]}
    monkeypatch.setattr(nodes, "BOOTSTRAP", str(tmp_path / "bootstrap.yaml"))
    monkeypatch.setattr(nodes, "cluster_address", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(ray, "nodes", lambda: facts["nodes"].pop(0) if facts.get("arriving") else facts["nodes"])
    monkeypatch.setattr(nodes.time, "sleep", lambda _: None)
    monkeypatch.setattr(nodes, "head_age_s", lambda: 30.0)
    facts["write"] = lambda text="": (tmp_path / "bootstrap.yaml").write_text(
        text or yaml.safe_dump(facts["spec"], sort_keys=False)
    )
    return facts


def test_from_zero_workers_as_many_trials_fit_as_the_cluster_may_come_to_have(here: dict[str, Any]):
    here["write"]()
    told: list[str] = []
    found = nodes.nodes_to_use(told.append)
    assert [node["NodeName"] for node in found] == ["head"] + 4 * ["gpu_worker"] + ["big_worker"]
    request = Request(workers=2, cpus=4, gpus=1.0, device="GPU")
    assert room(found, request) == (4 + 8) // 2
    assert told == []


def test_what_is_up_already_may_not_come_once_more(here: dict[str, Any]):
    here["nodes"] = [HEAD, *(up(f"w{n}", "gpu_worker", CPU=8, GPU=1) for n in range(3))]
    here["write"]()
    found = nodes.nodes_to_use(print)
    assert [node["NodeName"] for node in found] == ["head", "w0", "w1", "w2", "gpu_worker", "big_worker"]


def test_machines_that_start_with_the_cluster_are_waited_for(here: dict[str, Any]):
    workers = [up(name, CPU=1) for name in ("w0", "w1")]
    here |= {"spec": LOCAL, "arriving": True, "nodes": [[HEAD], [HEAD, workers[0]], [HEAD, *workers]]}
    here["write"]()
    told: list[str] = []
    assert nodes.nodes_to_use(told.append) == [HEAD, *workers]
    assert told == ["waiting for 2 of the cluster's machines"]


def test_a_machine_that_does_not_come_holds_nobody_up_for_ever(here: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    here["spec"] = LOCAL
    here["write"]()
    monkeypatch.setattr(nodes, "head_age_s", lambda: nodes.ARRIVAL_S)
    told: list[str] = []
    assert nodes.nodes_to_use(told.append) == [HEAD]
    assert told == ["2 of the cluster's machines have not come up yet; going on without them"]


def test_a_clusters_age_is_that_of_its_session(monkeypatch: pytest.MonkeyPatch):
    began = time.localtime(time.time() - 100)
    node = SimpleNamespace(session_name=time.strftime("session_%Y-%m-%d_%H-%M-%S_123456_789", began))
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    assert ray_private.head_age_s() == pytest.approx(100, abs=5)


def test_a_ray_of_ones_own_asks_no_autoscaler(here: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    here["write"]()
    monkeypatch.setattr(nodes, "cluster_address", lambda: "")
    assert nodes.nodes_to_use(print) == [HEAD]
    assert nodes.autoscaling() == {}


@pytest.mark.parametrize(
    ("text", "words"), [("prices: [", r"must be YAML, got .+; "), ("- 1", "a cluster's file, got")]
)
def test_a_clusters_file_that_cannot_be_read_is_answered_in_one_line(text: str, words: str, here: dict[str, Any]):
    here["write"](text)
    with pytest.raises(ConfigError, match=words) as caught:
        nodes.autoscaling()
    assert "\n" not in str(caught.value)


@contextlib.contextmanager
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("named", [None, "", "auto"])
def test_the_ray_that_was_started_here_is_joined(named: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS")
    if named is not None:
        monkeypatch.setenv("RAY_ADDRESS", named)
    with listening() as address:
        monkeypatch.setattr(session, "address_of_this_machine", lambda: address)
        assert cluster_address() == address
    with pytest.raises(ConfigError, match=f"the Ray that was started on this machine must answer, .* {address}"):
        cluster_address()
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address() == "", "unless one wants a Ray of one's own"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("auto", "needs a Ray that was started on this machine, got none"),
        ("127.0.0.1:9", "must answer, got nothing from 127.0.0.1:9"),
        ("ray://head:10001", "must be host:port .* ray submit"),
        ("http://127.0.0.1:8265", "must be host:port .* ray submit"),
        ("head", "must be host:port"),
        (":6379", "must be host:port"),
    ],
)
def test_an_address_that_leads_nowhere_is_answered_in_one_line(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session, "address_of_this_machine", lambda: "")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=words) as caught:
        cluster_address()
    assert "\n" not in str(caught.value)


def test_without_any_ray_a_launch_starts_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(session, "address_of_this_machine", lambda: "")
    assert cluster_address() == ""


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[node_check.Expected]:
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "shared"))
    with nodes.expected_of_nodes() as found:
        yield found
    assert list((tmp_path / "shared").iterdir()) == [], "what was written to look at is gone"


def test_this_machine_is_like_itself(expected: node_check.Expected):
    assert node_check.problem(expected) == ""
    assert {
        "jepa_train/train/loop.py",
        "sweeps/engine/lanes/pool.py",
        "search_spaces/lejepa.py",
    } <= expected.code.keys()


def test_a_machine_that_is_about_to_go_is_not_looked_at(expected: node_check.Expected, monkeypatch: pytest.MonkeyPatch):
    up, drained = ["head", "stays", "leaves", "hears"], {"leaves": 0}
    answers = {"head": "", "stays": "runs other code"}  # the others take no task

    def get(name: str, *, timeout: float) -> str:
        assert timeout == nodes.ANSWER_S
        assert name != "leaves"
        drained["hears"] = 0  # meanwhile
        if name not in answers:
            raise TimeoutError
        return answers[name]

    def remote(*_: Any) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **how: SimpleNamespace(remote=lambda _: how["scheduling_strategy"]))

    listed = [{"NodeID": name, "NodeManagerAddress": f"10.0.0.{number}"} for number, name in enumerate(up)]
    monkeypatch.setattr(nodes, "NodeAffinitySchedulingStrategy", lambda name, *, soft: name)  # noqa: ARG005
    monkeypatch.setattr(ray, "remote", lambda **_: remote)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "nodes", lambda: listed)
    monkeypatch.setattr(ray._private.state, "state", SimpleNamespace(get_draining_nodes=lambda: drained))
    assert nodes.problems_of_nodes(expected) == {"10.0.0.0": "", "10.0.0.1": "runs other code"}
    with pytest.raises(ConfigError, match=r"got 10\.0\.0\.1: runs other code; update the nodes"):
        nodes.check_nodes(expected)


@pytest.mark.parametrize("change", ["edited", "missing", "more"])
def test_other_code_is_named_by_machine_and_file(
    change: str, expected: node_check.Expected, monkeypatch: pytest.MonkeyPatch
):
    digests = dict(expected.code)
    {
        "edited": lambda: digests.update({"jepa_train/train/loop.py": "0" * 16}),
        "missing": lambda: digests.pop("jepa_train/train/loop.py"),
        "more": lambda: digests.update({"jepa_train/zzz.py": "0" * 16}),
    }[change]()
    monkeypatch.setattr(node_check, "source_digests", lambda: digests)
    file = "jepa_train/zzz.py" if change == "more" else "jepa_train/train/loop.py"
    assert node_check.problem(expected) == f"{socket.gethostname()} runs other code: {file} differs"


def test_other_versions_are_named(expected: node_check.Expected, monkeypatch: pytest.MonkeyPatch):
    whole = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0" if name == "timm" else whole(name))
    assert node_check.problem(expected) == f"{socket.gethostname()} has timm 1.0 instead of {whole('timm')}"


def test_a_machine_without_the_storage_is_told_so(expected: node_check.Expected, tmp_path: Path):
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    shared.rename(elsewhere)  # as where it is not mounted
    assert node_check.problem(expected).endswith(f"cannot use the storage: {shared} is another folder here")
    assert not shared.exists(), "nor is it made where it is not mounted"
    shared.write_text("a file where the folder should be")
    assert f"cannot use the storage: {shared}" in node_check.problem(expected)
    shared.unlink()
    elsewhere.rename(shared)


def test_a_machine_without_the_data_is_told_so(expected: node_check.Expected, tmp_path: Path):
    assert node_check.problem(dataclasses.replace(expected, data=str(tmp_path))) == ""
    wrong = node_check.problem(dataclasses.replace(expected, data="~/data/none"))
    assert wrong.startswith(f"{socket.gethostname()} has no data.path '~/data/none'")


def test_a_head_without_storage_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"^JEPA_STORAGE must be where checkpoints can be kept: "):
        nodes.expected_of_nodes().__enter__()


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("address", ["", "10.0.0.1:6379"])
def test_a_session_leaves_no_word_for_ray_behind(address: str, monkeypatch: pytest.MonkeyPatch):
    """A local session keeps notices of preemption from being heard: one on a cluster may follow in the process."""
    told: dict[str, str] = {}
    monkeypatch.setattr(session, "cluster_address", lambda: address)
    monkeypatch.setattr(ray, "init", lambda **_: told.update(os.environ))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_TRAIN_METRICS_ENABLED", "1")
    before, loopback = dict(os.environ), ray._private.ray_constants.ENABLE_RAY_CLUSTER
    with session.ray_session():
        pass
    assert told["RAY_TRAIN_METRICS_ENABLED"] == "1", "what somebody has set, stays"
    assert ("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER" in told) == (address == "")
    assert dict(os.environ) == before
    assert loopback == ray._private.ray_constants.ENABLE_RAY_CLUSTER


def test_results_that_cannot_be_written_are_one_line_before_ray_starts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JEPA_RESULTS", "/dev/null/x")
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("started"))
    rule = r"^results must go where they can be written, got /dev/null/x \(Not a directory\); .* set JEPA_RESULTS$"
    with pytest.raises(ConfigError, match=rule), session.ray_session():
        pass
