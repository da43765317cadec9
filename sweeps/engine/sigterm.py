"""SIGTERM as an exception, so that a command that a scheduler or another launch ends closes everything first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def exit_on_sigterm() -> Iterator[Callable[[], None]]:
    """Let SIGTERM raise SystemExit(143) in the block, where it runs in the main thread; other threads have no handlers.

    The earlier handler is restored at the end, unless a session that outlives the block has set its own meanwhile.

    Yields:
        A function that sets the handler again, after a library has set another one.
    """

    def leave(signum: int, _: object) -> None:
        raise SystemExit(128 + signum)

    def install() -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, leave)

    before = signal.getsignal(signal.SIGTERM)
    install()
    try:
        yield install
    finally:
        if signal.getsignal(signal.SIGTERM) is leave and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
