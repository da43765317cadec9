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
from http.client import HTTPException

import grpc
from ray.core import generated

_PATIENCE_S = 60.0
_SILENCE_S = 30.0  # a socket that has said nothing for so long is silent; all are knocked at together
_BROKEN = "broke off"
_PATHS = ("/", "/metrics", "/api/version", "/api/jobs/", "/api/v0/nodes", "/nodes?view=summary", "/logs/", "/health")
_REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED)  # the latter: no such method here
_METHODS_AT_ONCE = 4
_SOCKETS_AT_ONCE = 64


def knock(address: str) -> tuple[str, list[str]]:
    """The kind of a socket (closed, ssh, http, grpc, silent) and everything that was answered, refusals left out.

    Processes end, and their sockets with them: where an answer broke off and the next connection is refused, the socket
    was closed meanwhile.
    """
    kind, answers = _asked(address)
    if any(answer.endswith(_BROKEN) for answer in answers) and _first_words(address) is None:
        answers = [answer for answer in answers if not answer.endswith(_BROKEN)]
        return kind if answers else "closed", answers
    return kind, answers


def _asked(address: str) -> tuple[str, list[str]]:
    first = _first_words(address)
    if first is None:
        return "closed", []
    if first.startswith(b"SSH-"):
        return "ssh", []
    if first.startswith(b"HTTP/"):
        return "http", [answer for path in _PATHS if (answer := _get(f"http://{address}{path}"))]
    if first[3:4] == b"\x04":  # HTTP/2 begins with a frame of settings
        with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(_METHODS_AT_ONCE) as pool:
            return "grpc", [answer for answer in pool.map(lambda name: _call(channel, name), _methods()) if answer]
    return "silent", [repr(first)] if first else []


def _first_words(address: str) -> bytes | None:
    """What is said to a request, b"" for nothing; None where there is no connection."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_SILENCE_S) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(64)
    except TimeoutError:
        return b""
    except ConnectionError:
        return None


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as reply:
            return f"{url}: {reply.status} {reply.read(80)!r}"
    except urllib.error.HTTPError as error:
        return "" if error.code == 401 else f"{url}: {error.code}"
    except (OSError, HTTPException) as error:
        return f"{url}: {error} {_BROKEN}"


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
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return f"{method}: {error.details()} {_BROKEN}"
        return "" if error.code() in _REFUSALS else f"{method}: {error.code()}"


if __name__ == "__main__":
    with ThreadPoolExecutor(_SOCKETS_AT_ONCE) as pool:
        json.dump(dict(zip(sys.argv[1:], pool.map(knock, sys.argv[1:]), strict=True)), sys.stdout)
