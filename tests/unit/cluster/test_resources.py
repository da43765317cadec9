"""How many trials fit: by node, not by sums; and how many share a GPU."""

import pytest

from jepa_train.base.errors import ConfigError
from sweeps.engine.cluster.resources import Node, Request, alive, room


def node(cpus: float, gpus: float = 0, name: str = "n", kind: str = "H100") -> Node:
    """As ray.nodes() tells of one."""
    resources = {"CPU": cpus} | ({"GPU": gpus, f"accelerator_type:{kind}": 1.0} if gpus else {})
    return {"NodeName": name, "Alive": True, "Resources": resources}


LAPTOP = [node(2)]
CLUSTER = [node(8, name="head")] + [node(64, 8, name=f"gpu{number}") for number in range(4)]


def asked(workers: int = 1, cpus: int = 1, gpus: float = 0.0) -> Request:
    return Request(workers=workers, cpus=cpus, gpus=gpus, device="X")


@pytest.mark.parametrize(
    ("nodes", "request_", "trials"),
    [
        (LAPTOP, asked(), 2),
        (LAPTOP, asked(workers=2), 1),
        (LAPTOP, asked(cpus=2), 1),
        (CLUSTER, asked(gpus=1), 32),
        (CLUSTER, asked(gpus=1, cpus=16), 16),  # four workers per node by CPUs, four GPUs of each stay idle
        (CLUSTER, asked(workers=3, gpus=1), 10),  # 32 workers, two of them left over; workers of a trial spread
        (CLUSTER, asked(workers=2, gpus=3), 4),  # two workers of 3 GPUs on each node
        (CLUSTER, asked(gpus=0.5), 64),
        (CLUSTER, asked(gpus=0.3333), 96),
        (CLUSTER, asked(gpus=0.3, cpus=2), 96),  # three, not 3.33, on each GPU
        (CLUSTER, asked(gpus=0.6), 32),  # a fraction lies on one GPU: not 13 on 8
        (CLUSTER, asked(cpus=5), 49),  # 1 on the head, 12 on each of the others; 52 by the sum of CPUs
        ([node(4), node(3, 1), node(16, 1)], asked(cpus=4, gpus=1), 1),  # the second node's GPU has too few CPUs
    ],
)
def test_room_counts_workers_node_by_node(nodes: list[Node], request_: Request, trials: int) -> None:
    assert room(nodes, request_) == trials


@pytest.mark.parametrize(
    ("nodes", "request_", "words"),
    [
        (LAPTOP, asked(workers=3), ("3 workers x (1 CPUs + 0 GPUs)", "1 nodes hold 2 such workers", "lower workers")),
        (LAPTOP, asked(cpus=3), ("hold 0 such", "largest, n, has 2 CPUs and 0 GPUs", "lower cpus_per_worker")),
        (CLUSTER, asked(cpus=65), ("largest, gpu0, has 64 CPUs", "lower cpus_per_worker")),  # of 264 CPUs in all
        (CLUSTER, asked(gpus=9), ("9 GPUs", "gpu0, has 64 CPUs and 8 GPUs", "lower cpus_per_worker or gpus_per")),
        ([node(96, name="head"), node(8, 1, "small")], asked(cpus=16, gpus=1), ("small, has 8 CPUs and 1 GPUs",)),
    ],
)
def test_what_can_never_be_placed_is_refused_in_one_line(
    nodes: list[Node], request_: Request, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"^workers must fit the cluster, got") as caught:
        room(nodes, request_)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_one_gpu_each_where_there_are_enough_and_none_otherwise() -> None:
    given = [Request.of(CLUSTER, workers=workers, cpus=1, gpus=-1).gpus for workers in (1, 32, 33)]
    assert given == [1, 1, 0]
    assert Request.of(LAPTOP, workers=1, cpus=1, gpus=-1).gpus == 0
    assert Request.of(CLUSTER, workers=1, cpus=1, gpus=0).gpus == 0


def test_a_request_says_what_its_time_is_counted_in() -> None:
    shared = Request.of(CLUSTER, workers=1, cpus=2, gpus=0.25)
    assert (str(shared), shared.devices, shared.unit) == ("1 x (2 CPU, 0.25 H100)", 0.25, "GPU-hours")
    pair = Request.of(CLUSTER, workers=2, cpus=4, gpus=2)
    assert (str(pair), pair.devices) == ("2 x (4 CPU, 2 H100)", 4)
    mixed = [node(8, 1, kind="L4"), *CLUSTER]
    assert Request.of(mixed, workers=1, cpus=1, gpus=1).device == "H100+L4"
    on_cpus = Request.of(CLUSTER, workers=3, cpus=4, gpus=0)
    assert (on_cpus.devices, on_cpus.unit) == (3, "CPU-worker-hours")


def test_nodes_that_died_are_not_counted() -> None:
    assert alive([*LAPTOP, {**node(64), "Alive": False}]) == LAPTOP
