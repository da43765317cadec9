"""A socket may close while somebody knocks at it: that is no answer, and no failure."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from knock import knock

HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # the first frame of HTTP/2


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts a server that gives each of so many connections the same words, then is gone; returns its address."""
    threads = []

    def started(words: bytes, connections: int) -> str:
        server = socket.create_server(("127.0.0.1", 0))

        def work() -> None:
            with closing(server):
                for _ in range(connections):
                    with server.accept()[0] as connection:
                        connection.recv(1024)
                        connection.sendall(words)

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        return "{}:{}".format(*server.getsockname())

    yield started
    for thread in threads:
        thread.join(60)


@pytest.mark.parametrize("words", [HTTP, SETTINGS])
def test_a_socket_that_closes_after_its_first_words_is_closed(serve: Callable[..., str], words: bytes) -> None:
    assert knock(serve(words, 1)) == ("closed", [])


def test_what_was_answered_before_a_socket_closed_counts(serve: Callable[..., str]) -> None:
    kind, answers = knock(serve(HTTP, 2))
    assert kind == "http"
    assert len(answers) == 1
    assert "200" in answers[0]
    assert "hi" in answers[0]
