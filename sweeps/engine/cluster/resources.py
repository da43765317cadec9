"""Resources of trials: the request of one trial, and the number of trials that fit at once."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from analysis.device_time import unit_of
from jepa_train.base.errors import ConfigError
from sweeps.engine.spec.sweep import Sweep

Node = Mapping[str, Any]  # one of ray.nodes()


@dataclass(frozen=True, kw_only=True)
class Request:
    """Resources of one trial.

    Args:
        device: "H200", as Ray names accelerators, or the CPU's name.
    """

    workers: int
    cpus: int  # of each worker, and its threads
    gpus: float  # of each worker; 0 trains on the CPU
    device: str

    @classmethod
    def of(cls, nodes: Sequence[Node], *, workers: int, cpus: int, gpus: float) -> Self:
        """The request on these nodes; gpus=-1 becomes 1 where they have enough for all workers, else 0."""
        if gpus == -1:
            gpus = float(sum(_has(node, "GPU") for node in nodes) >= workers)
        return cls(workers=workers, cpus=cpus, gpus=gpus, device=_accelerators(nodes) if gpus else _cpu_name())

    @property
    def devices(self) -> float:
        """Devices of a trial, in the unit of its price: GPUs, or workers on CPUs."""
        return self.workers * (self.gpus or 1.0)

    @property
    def unit(self) -> str:
        """Unit of its time."""
        return unit_of(str(self))

    def __str__(self) -> str:
        """Text that the ledger stores: "2 x (4 CPU, 1 H200)"."""
        return f"{self.workers} x ({self.cpus} CPU, {f'{self.gpus:g} ' if self.gpus else ''}{self.device})"


def alive(nodes: Sequence[Node]) -> list[Node]:
    """The nodes that can run something, of ray.nodes()."""
    return [node for node in nodes if node.get("Alive", True)]


def this_machine() -> list[Node]:
    """This machine as ray.nodes() would list it, without the names of GPUs; does not need Ray."""
    return [{"NodeName": "this machine", "Resources": {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}}]


def check_machine(sweep: Sweep) -> None:
    """Refuse a trial that this machine can never hold, before Ray starts. A cluster is checked when it is joined.

    Raises:
        ConfigError: it cannot be placed, or there is a cluster that does not answer.
    """
    from sweeps.engine.cluster.session import cluster_address  # Ray takes a second to import

    if not cluster_address():
        nodes, workers, cpus = this_machine(), sweep.workers, sweep.cpus_per_worker
        room(nodes, Request.of(nodes, workers=workers, cpus=cpus, gpus=sweep.gpus_per_worker))


def room(nodes: Sequence[Node], request: Request) -> int:
    """Number of trials that fit at once: a worker runs on one node, the workers of a trial on one or several.

    Raises:
        ConfigError: not even one trial fits.
    """
    workers = workers_on(nodes, request)
    if workers >= request.workers:
        return workers // request.workers
    largest = max(nodes, key=lambda node: (_has(node, "GPU") if request.gpus else 0, _has(node, "CPU")))
    wanted = f"{request.workers} workers x ({request.cpus} CPUs + {request.gpus:g} GPUs)"
    has = f"{_has(largest, 'CPU'):g} CPUs and {_has(largest, 'GPU'):g} GPUs"
    raise ConfigError(
        f"workers must fit the cluster, got {wanted}, but its {len(nodes)} nodes hold {workers} such workers, and the "
        f"largest, {largest.get('NodeName', 'unnamed')}, has {has}; lower "
        f"{'workers' if workers else 'cpus_per_worker or gpus_per_worker'}"
    )


def workers_on(nodes: Sequence[Node], request: Request) -> int:
    """Number of workers that fit on the nodes."""
    return sum(_workers_on(node, request) for node in nodes)


def _workers_on(node: Node, request: Request) -> int:
    by_cpu = int(_has(node, "CPU") / request.cpus)
    if not request.gpus:
        return by_cpu
    if request.gpus >= 1:
        return min(by_cpu, int(_has(node, "GPU") / request.gpus))
    return min(by_cpu, int(_has(node, "GPU")) * int(1 / request.gpus + 1e-9))  # a fraction lies on one GPU


def _has(node: Node, resource: str) -> float:
    return float(node["Resources"].get(resource, 0))


def _accelerators(nodes: Sequence[Node]) -> str:
    """The types of the nodes' GPUs, as Ray detects them."""
    prefix = "accelerator_type:"
    found = {name.removeprefix(prefix) for node in nodes for name in node["Resources"] if name.startswith(prefix)}
    return "+".join(sorted(found)) or "GPU"


def _cpu_name() -> str:
    """CPU of the driver's machine, which stands for those of its cluster."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), flags=re.MULTILINE) if info.exists() else None
    return found[1].strip() if found else "CPU"
