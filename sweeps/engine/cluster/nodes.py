"""Nodes of the cluster that a launch has joined: those that are up, those that may come, and checks of both."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jepa_train.base.errors import ConfigError
from jepa_train.storage.storage import storage_dir
from sweeps.engine.cluster.folders import check_shared_storage, probe_file
from sweeps.engine.cluster.node_check import Expected, installed_versions, problem
from sweeps.engine.cluster.ray_private import draining_nodes, head_age_s
from sweeps.engine.cluster.resources import Node, alive
from sweeps.engine.cluster.session import cluster_address

ARRIVAL_S = 300.0  # after its head, the machines that start with a cluster are there, or have failed to start
ANSWER_S = 120.0  # for the check of a node, which starts a process there

BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # the autoscaler's settings, which `ray up` leaves on the head
_GROUP = "ray.io/node-group"  # label of a node that the autoscaler has started: its type


def nodes_to_use(note: Callable[[str], object]) -> list[Node]:
    """The nodes that are up, and on a cluster those that the autoscaler may still start, as ray.nodes() lists them.

    Waits for machines that start with the cluster while it is young. Ray must be running.
    """
    spec = autoscaling()
    waiting = False
    while (late := _num_late(spec, nodes := alive(ray.nodes()))) and head_age_s() < ARRIVAL_S:
        if not waiting:
            note(f"waiting for {late} of the cluster's machines")
        waiting = True
        time.sleep(1.0)
    if late:
        note(f"{late} of the cluster's machines have not come up yet; going on without them")
    return nodes + _to_come(spec, nodes)


def autoscaling() -> Mapping[str, Any]:
    """Settings of the autoscaler of the cluster that this launch joins; {} if there is none, or no cluster."""
    file = Path(BOOTSTRAP).expanduser()
    return yaml.safe_load(file.read_text()) if cluster_address() and file.is_file() else {}


def _worker_types(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    types = spec.get("available_node_types") or {}
    return {name: settings for name, settings in types.items() if name != spec.get("head_node_type")}


def _num_late(spec: Mapping[str, Any], nodes: Sequence[Node]) -> int:
    """Number of missing machines of those that start with the cluster. Provider local has one type for all."""
    own = (spec.get("provider") or {}).get("type") == "local"
    types = (spec.get("available_node_types") or {}).values() if own else _worker_types(spec).values()
    return max(0, sum(settings.get("min_workers", 0) for settings in types) + bool(spec) - len(nodes))


def _to_come(spec: Mapping[str, Any], nodes: Sequence[Node]) -> list[Node]:
    """The nodes of each type that are not up, within the cluster's limit."""
    up = Counter(node.get("Labels", {}).get(_GROUP) for node in nodes)
    found: list[Node] = []
    for name, settings in _worker_types(spec).items():
        missing = settings.get("max_workers", 0) - up[name]
        found += [{"NodeName": name, "Resources": settings.get("resources") or {}}] * max(0, missing)
    return found[: max(0, spec.get("max_workers", 0) + 1 - len(nodes))]


@contextmanager
def expected_of_nodes() -> Iterator[Expected]:
    """Requirements of every node, from this one. The probe file stays in the storage while the block lasts.

    Raises:
        ConfigError: this node itself cannot use the storage.
    """
    storage = storage_dir()
    check_shared_storage(storage)
    with probe_file(storage) as probe:
        yield Expected(versions=installed_versions(), storage=str(storage), probe=probe)


def check_nodes(expected: Expected) -> None:
    """Check every node that is up. Those that come later are checked when their first worker starts.

    Raises:
        ConfigError: naming the nodes that are not fit.
    """
    problems = [f"{address}: {reason}" for address, reason in problems_of_nodes(expected).items() if reason]
    if problems:
        raise unfit_nodes_error(problems)


def problems_of_nodes(expected: Expected) -> dict[str, str]:
    """The problem of every node that is up and stays, by its address; "" for a node without one.

    A node that drains, as spot machines do on a notice, takes no task: neither a check nor a cell.
    """
    check = ray.remote(num_cpus=0, max_retries=0)(problem)
    answers = {}
    for node in _staying():
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        answers[node["NodeManagerAddress"]] = check.options(scheduling_strategy=here).remote(expected)
    problems = {}
    for address, answer in answers.items():
        try:
            problems[address] = str(ray.get(answer, timeout=ANSWER_S))
        except (RayError, TimeoutError) as error:
            problems[address] = f"cannot be checked ({type(error).__name__})"
    staying = {node["NodeManagerAddress"] for node in _staying()}
    return {address: reason for address, reason in problems.items() if address in staying}


def _staying() -> list[Node]:
    leaving = draining_nodes()
    return [node for node in alive(ray.nodes()) if node["NodeID"] not in leaving]


def unfit_nodes_error(problems: Sequence[str]) -> ConfigError:
    """Error that names every node that is not fit, and its problem."""
    return ConfigError(
        f"every node must have the head's versions and see its storage, got {'; '.join(sorted(problems))}; "
        "update the nodes (ray up CLUSTER.yaml), then launch again"
    )
