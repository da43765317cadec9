"""Room for trials: counted node by node; shares of a GPU.

Run: python -m pytest tests/unit/cluster/test_resources.py
"""

import pytest

from jepa_train.base.errors import ConfigError
from sweeps.engine.cluster.resources import Node, Request, alive, room


def node(cpus: float, gpus: float = 0, name: str = "n", kind: str = "H100") -> Node:
    """A node as ray.nodes() lists it."""
    resources = {"CPU": cpus} | ({"GPU": gpus, f"accelerator_type:{kind}": 1.0} if gpus else {})
    return {"NodeName": name, "Alive": True, "Resources": resources}


LAPTOP = [node(2)]
CLUSTER = [node(8, name="head")] + [node(64, 8, name=f"gpu{number}") for number in range(4)]


def need(workers: int = 1, cpus: int = 1, gpus: float = 0.0) -> Request:
    return Request(workers=workers, cpus=cpus, gpus=gpus, device="X")


@pytest.mark.parametrize(
    ("nodes", "request_", "trials"),
    [
        (LAPTOP, need(), 2),
        (LAPTOP, need(cpus=2), 1),
        (CLUSTER, need(gpus=1), 32),
        (CLUSTER, need(gpus=1, cpus=16), 16),  # four workers per node by CPUs, four GPUs of each stay idle
        (CLUSTER, need(workers=3, gpus=1), 10),  # 32 workers, two of them left over; workers of a trial spread
        (CLUSTER, need(workers=2, gpus=3), 4),  # two workers of 3 GPUs on each node
        (CLUSTER, need(gpus=0.5), 64),
        (CLUSTER, need(gpus=0.3, cpus=2), 96),  # three, not 3.33, on each GPU
        (CLUSTER, need(gpus=0.6), 32),  # a fraction lies on one GPU: not 13 on 8
        (CLUSTER, need(cpus=5), 49),  # 1 on the head, 12 on each of the others; 52 by the sum of CPUs
        ([node(4), node(3, 1), node(16, 1)], need(cpus=4, gpus=1), 1),  # the second node's GPU has too few CPUs
    ],
)
def test_room_counts_workers_node_by_node(nodes: list[Node], request_: Request, trials: int) -> None:
    assert room(nodes, request_) == trials


@pytest.mark.parametrize(
    ("nodes", "request_", "words"),
    [
        (LAPTOP, need(workers=3), ("3 workers x (1 CPUs + 0 GPUs)", "1 nodes hold 2 such workers", "lower workers")),
        (LAPTOP, need(cpus=3), ("hold 0 such", "largest, n, has 2 CPUs and 0 GPUs", "lower cpus_per_worker")),
        (CLUSTER, need(gpus=9), ("9 GPUs", "gpu0, has 64 CPUs and 8 GPUs", "lower cpus_per_worker or gpus_per")),
        ([node(96, name="head"), node(8, 1, "small")], need(cpus=16, gpus=1), ("small, has 8 CPUs and 1 GPUs",)),
    ],
)
def test_a_request_that_never_fits_is_one_line(nodes: list[Node], request_: Request, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^workers must fit the cluster, got") as caught:
        room(nodes, request_)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_one_gpu_each_where_there_are_enough_and_none_otherwise() -> None:
    gpus = [Request.of(CLUSTER, workers=workers, cpus=1, gpus=-1).gpus for workers in (1, 32, 33)]
    assert gpus == [1, 1, 0]


def test_text_and_time_unit_of_a_request() -> None:
    shared = Request.of(CLUSTER, workers=1, cpus=2, gpus=0.25)
    assert (str(shared), shared.devices, shared.unit) == ("1 x (2 CPU, 0.25 H100)", 0.25, "GPU-hours")
    mixed = [node(8, 1, kind="L4"), *CLUSTER]
    assert Request.of(mixed, workers=1, cpus=1, gpus=1).device == "H100+L4"
    on_cpus = Request.of(CLUSTER, workers=3, cpus=4, gpus=0)
    assert (on_cpus.devices, on_cpus.unit) == (3, "CPU-worker-hours")


def test_dead_nodes_are_not_counted() -> None:
    assert alive([*LAPTOP, {**node(64), "Alive": False}]) == LAPTOP
