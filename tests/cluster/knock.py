"""What does somebody without a token get from these sockets? Run by the test on a host that is not of the cluster.

python knock.py HOST:PORT ... prints one JSON object: for each socket its kind, and what it has answered with.
"""

import importlib
import json
import pkgutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from ray.core import generated

_PATIENCE_S = 5.0
_PATHS = ("/", "/metrics", "/api/version", "/api/jobs/", "/api/v0/nodes", "/nodes?view=summary", "/logs/", "/health")
_REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED)  # the latter: no such method here
_WORKERS = 16


def knock(address: str) -> tuple[str, list[str]]:
    """The kind of a socket (closed, ssh, http, grpc, silent) and everything that was answered, refusals left out."""
    host, _, port = address.rpartition(":")
    try:
        first = _first_words(host, int(port))
    except ConnectionError:
        return "closed", []
    if first.startswith(b"SSH-"):
        return "ssh", []
    if first.startswith(b"HTTP/"):
        return "http", [answer for path in _PATHS if (answer := _get(f"http://{address}{path}"))]
    if first[3:4] == b"\x04":  # HTTP/2 begins with a frame of settings
        with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(_WORKERS) as pool:
            return "grpc", [answer for answer in pool.map(lambda name: _call(channel, name), _methods()) if answer]
    return "silent", [repr(first)] if first else []


def _first_words(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), timeout=_PATIENCE_S) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        try:
            return connection.recv(64)
        except TimeoutError:
            return b""


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as reply:
            return f"{url}: {reply.status} {reply.read(80)!r}"
    except urllib.error.HTTPError as error:
        return "" if error.code == 401 else f"{url}: {error.code}"


def _methods() -> Iterator[str]:
    """Every method of every service that Ray has, as a path."""
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2"):
            for service in importlib.import_module(
                f"ray.core.generated.{module.name}"
            ).DESCRIPTOR.services_by_name.values():
                yield from (f"/{service.full_name}/{method.name}" for method in service.methods)


def _call(channel: grpc.Channel, method: str) -> str:
    send = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
    try:
        return f"{method}: {send(b'', timeout=_PATIENCE_S)[:80]!r}"
    except grpc.RpcError as error:
        return "" if error.code() in _REFUSALS else f"{method}: {error.code()}"


if __name__ == "__main__":
    json.dump({address: knock(address) for address in sys.argv[1:]}, sys.stdout)
