"""SIGTERM as an exception: nested blocks, and handlers of libraries. tests/integration/store/test_lock.py has the rest.

Run: python -m pytest tests/unit/test_sigterm.py
"""

import signal
from contextlib import ExitStack

import pytest

from sweeps.engine.sigterm import exit_on_sigterm


def test_a_session_that_outlives_the_block_keeps_its_handler() -> None:
    with exit_on_sigterm(), ExitStack() as session:
        with exit_on_sigterm():
            session.enter_context(exit_on_sigterm())
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)


def test_a_handler_that_a_library_has_set_is_replaced() -> None:
    with exit_on_sigterm() as again:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        again()
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
