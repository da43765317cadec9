"""Capture and replay of a step, with a stand-in for CUDA that notes what it is asked for.

Run: python -m pytest tests/unit/train/test_cuda_graph.py
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch

from jepa_train.train.cuda_graph import GraphStep


class FakeStep:
    """A step that counts its calls, and may have a reason against a graph."""

    def __init__(self, *, obstacle: str = "", refuses: bool = False, warns: str = "") -> None:
        self.calls: list[str] = []
        self.mode = "eager"
        self._obstacle, self._refuses, self._warns = obstacle, refuses, warns

    def __call__(self) -> None:
        self.calls.append(self.mode)
        if self.mode == "captured" and self._refuses:
            raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")
        if self._warns:
            warnings.warn(self._warns, stacklevel=1)

    def obstacle(self) -> str:
        return self._obstacle


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeStep], GraphStep]:
    """GraphStep of a step, whose replays it notes too."""
    steps: list[FakeStep] = []

    @contextlib.contextmanager
    def capture(_graph: Any, **_options: Any) -> Iterator[None]:
        steps[0].mode = "captured"
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError("operation failed due to a previous error during capture") from error
        finally:
            steps[0].mode = "eager"

    graph = mock.Mock(replay=lambda: steps[0].calls.append("replayed"))
    for name, value in {
        "Stream": mock.Mock(),
        "current_stream": mock.Mock(),
        "stream": contextlib.nullcontext,
        "graph": capture,
        "CUDAGraph": mock.Mock(return_value=graph),
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda _mode: None,
        "current_device": lambda: 0,
        "default_generators": (mock.Mock(),),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def make(step: FakeStep) -> GraphStep:
        steps.append(step)
        return GraphStep(step)

    return make


def test_a_step_is_captured_after_three_and_then_replayed(graphed: Callable[[FakeStep], GraphStep]) -> None:
    step = FakeStep()
    run = graphed(step)
    for _ in range(5):
        run()
    assert step.calls == ["eager"] * 3 + ["captured", "replayed", "replayed"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (FakeStep(obstacle="it reads a number"), "it reads a number"),
        (FakeStep(refuses=True), "operation not permitted when stream is capturing"),
        (FakeStep(warns="called a synchronizing CUDA operation"), "waits for the GPU"),
    ],
    ids=["obstacle", "refused", "waits"],
)
def test_a_step_that_no_graph_can_hold_stays_eager_with_one_warning(
    step: FakeStep, reason: str, graphed: Callable[[FakeStep], GraphStep], caplog: pytest.LogCaptureFixture
) -> None:
    run = graphed(step)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("ignore")
        for _ in range(6):
            run()
    assert [call for call in step.calls if call != "captured"] == ["eager"] * 6
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("training goes on without a CUDA graph, which is slower: ")
    assert warning.endswith(reason)
    assert run.reason.endswith(reason)
    generator: Any = torch.cuda.default_generators[0]
    assert generator.graphsafe_set_state.call_count == step.calls.count("captured")
    assert not run.is_replayed


def test_other_warnings_of_the_watched_step_are_passed_on(graphed: Callable[[FakeStep], GraphStep]) -> None:
    step = FakeStep(warns="the learning rate is high")
    run = graphed(step)
    for _ in range(4):  # the third is watched, the fourth captured
        with pytest.warns(UserWarning, match="the learning rate is high"):
            run()
    assert step.calls[-1] == "replayed"
