"""What an hour costs, where the file of the cluster says it: `metadata: {prices: {node_type: dollars per hour}}`."""

from collections.abc import Mapping
from typing import Any

from jepa_train.base.errors import ConfigError, nearest, short_repr
from sweeps.engine.cluster.resources import Request


def rate(spec: Mapping[str, Any], request: Request) -> float | None:
    """Dollars per hour of the request's unit, by what the cluster's autoscaler goes by; None without prices.

    A node's price is shared among its GPUs; on a cluster without any, among its CPUs. Of several types of node that
    could hold a worker the dearest counts.

    Raises:
        ConfigError: prices that cannot be read.
    """
    metadata, types = spec.get("metadata") or {}, spec.get("available_node_types") or {}
    prices = metadata.get("prices") if isinstance(metadata, Mapping) else None
    if prices is None or not isinstance(types, Mapping):
        return None
    rule = "metadata.prices in the cluster's file must give dollars per hour by node type, as {gpu_worker: 3.06}"
    if not isinstance(prices, Mapping):
        raise ConfigError(f"{rule}, got {short_repr(prices)}")
    counts: dict[str, float] = {}
    for name, price in prices.items():
        if name not in types:
            raise ConfigError(f"{rule}, got the type {name!r}{nearest(str(name), map(str, types))}")
        if not isinstance(price, int | float) or isinstance(price, bool) or not 0 <= price < float("inf"):
            raise ConfigError(f"{rule}, got {short_repr(price)} for {name}")
        if not _number(types[name], "CPU") and not _number(types[name], "GPU"):
            raise ConfigError(f"{rule}, got {name}, whose resources are not written; add resources: {{CPU: 8, GPU: 1}}")
        counts[name] = _workers(types, name, request)
    return max((float(prices[name]) / count for name, count in counts.items() if count > 0), default=None)


def _workers(types: Mapping[Any, Any], name: Any, request: Request) -> float:
    """Units of the request in a node of this type: its GPUs, or the workers that its CPUs hold."""
    if request.gpus:
        return _number(types[name], "GPU")
    on_gpus = any(_number(node, "GPU") > 0 for node in types.values())  # a cluster for GPUs prices no run on CPUs
    return 0.0 if on_gpus else _number(types[name], "CPU") / request.cpus


def _number(node: Any, resource: str) -> float:
    resources = (node.get("resources") or {}) if isinstance(node, Mapping) else {}
    count = resources.get(resource, 0) if isinstance(resources, Mapping) else 0
    return float(count) if isinstance(count, int | float) else 0.0
