"""SIGTERM as an exception.

Run: python -m pytest tests/unit/test_sigterm.py
"""

import signal
from contextlib import ExitStack

import pytest

from sweeps.engine.sigterm import exit_on_sigterm


def test_the_signal_ends_the_block_and_the_handler_before_it_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), exit_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


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
