"""The nodes of the cluster that a launch has joined: those that are up, those that may come, whether they are fit."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.cloudpickle
import yaml
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jepa_train.base.errors import ConfigError, short_repr
from jepa_train.storage.storage import storage_dir
from sweeps.engine.cluster import node_check
from sweeps.engine.cluster.folders import check_shared_storage, probe_file
from sweeps.engine.cluster.node_check import Expected
from sweeps.engine.cluster.ray_private import draining_nodes, head_age_s
from sweeps.engine.cluster.resources import Node, alive
from sweeps.engine.cluster.session import cluster_address

ARRIVAL_S = 300.0  # after its head, the machines of a cluster that starts all of them at once are there, or will not be
ANSWER_S = 120.0  # for a node to be looked at: it starts a process for that

BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # which `ray up` leaves on the head: what the autoscaler goes by
_GROUP = "ray.io/node-group"  # the label of a node that the autoscaler has started: its type

ray.cloudpickle.register_pickle_by_value(node_check)


def nodes_to_use(note: Callable[[str], object]) -> list[Node]:
    """The nodes that are up, and on a cluster those that the autoscaler may still start, as ray.nodes() will list them.

    Machines that start with the cluster are waited for while it is young. Ray must be running.
    """
    spec = autoscaling()
    told = False
    while (late := _late(spec, nodes := alive(ray.nodes()))) and head_age_s() < ARRIVAL_S:
        if not told:
            note(f"waiting for {late} of the cluster's machines")
        told = True
        time.sleep(1.0)
    if late:
        note(f"{late} of the cluster's machines have not come up yet; going on without them")
    return nodes + _to_come(spec, nodes)


def autoscaling() -> Mapping[str, Any]:
    """What the autoscaler of the cluster that this launch joins goes by; {} where there is none, or no cluster.

    Raises:
        ConfigError: its file cannot be read.
    """
    file = Path(BOOTSTRAP).expanduser()
    if not cluster_address() or not file.is_file():
        return {}
    try:
        spec = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} must be YAML, got {short_repr(str(error))}; start the cluster anew") from error
    if not isinstance(spec, Mapping):
        raise ConfigError(f"{file} must be a cluster's file, got {short_repr(spec)}; start the cluster anew")
    return spec


def _worker_types(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    types = spec.get("available_node_types") or {}
    return {name: about for name, about in types.items() if name != spec.get("head_node_type")}


def _late(spec: Mapping[str, Any], nodes: Sequence[Node]) -> int:
    """How many machines are missing of those that start with the cluster. Provider local has one type for all."""
    own = (spec.get("provider") or {}).get("type") == "local"
    least = (spec.get("available_node_types") or {}).values() if own else _worker_types(spec).values()
    return max(0, sum(about.get("min_workers", 0) for about in least) + bool(spec) - len(nodes))


def _to_come(spec: Mapping[str, Any], nodes: Sequence[Node]) -> list[Node]:
    """Of every type as many as are not up, within what the cluster may have in all."""
    up = Counter(node.get("Labels", {}).get(_GROUP) for node in nodes)
    found: list[Node] = []
    for name, about in _worker_types(spec).items():
        missing = about.get("max_workers", 0) - up[name]
        found += [{"NodeName": name, "Resources": about.get("resources") or {}}] * max(0, missing)
    return found[: max(0, spec.get("max_workers", 0) + 1 - len(nodes))]


@contextmanager
def expected_of_nodes() -> Iterator[Expected]:
    """What every node must have in common with this one, while the block lasts.

    Raises:
        ConfigError: this node itself cannot use the storage.
    """
    place = storage_dir()
    check_shared_storage(place)
    with probe_file(place) as probe:
        yield Expected(
            code=node_check.source_digests(), versions=node_check.installed_versions(), storage=str(place), probe=probe
        )


def check_nodes(expected: Expected) -> None:
    """Look at every node that is up. Those that come later are looked at when their first worker starts.

    Raises:
        ConfigError: naming the nodes that differ.
    """
    problems = [f"{address}: {problem}" for address, problem in problems_of_nodes(expected).items() if problem]
    if problems:
        raise unfit_nodes_error(problems)


def problems_of_nodes(expected: Expected) -> dict[str, str]:
    """What is wrong with every node that is up and stays, by its address; "" where nothing is.

    One that drains, as spot machines do on a notice, takes no task: neither a look nor a cell.
    """
    look = ray.remote(num_cpus=0, max_retries=0)(node_check.problem)
    looks = [
        (node, look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)))
        for node in _staying()
    ]
    answers = [(node["NodeManagerAddress"], look.remote(expected)) for node, look in looks]
    problems = {}
    for address, answer in answers:
        try:
            problems[address] = str(ray.get(answer, timeout=ANSWER_S))
        except (RayError, TimeoutError) as error:
            problems[address] = f"cannot be looked at ({type(error).__name__})"
    still = {node["NodeManagerAddress"] for node in _staying()}
    return {address: problem for address, problem in problems.items() if address in still}  # spot machines go


def _staying() -> list[Node]:
    leaving = draining_nodes()
    return [node for node in alive(ray.nodes()) if node["NodeID"] not in leaving]


def unfit_nodes_error(problems: Sequence[str]) -> ConfigError:
    """Error that names every node that is not fit, and what is wrong with it."""
    return ConfigError(
        f"every node must run the head's code and see its storage, got {'; '.join(sorted(problems))}; "
        "update the nodes (ray up CLUSTER.yaml), then launch again"
    )
