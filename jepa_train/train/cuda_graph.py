"""Replay of a training step as one CUDA graph: the host launches it once instead of each of its kernels."""

import logging
import warnings
from collections.abc import Callable
from typing import Protocol

import torch

logger = logging.getLogger(__name__)

EAGER_STEPS = 3  # before the capture: libraries choose their kernels, and state that lasts is allocated


class CapturableStep(Protocol):
    """A step without arguments and results, whose operations, shapes and Python numbers are the same in each call."""

    def __call__(self) -> None:
        """Take a step, in place."""

    def obstacle(self) -> str:
        """Reason why the last call may not be replayed; "" if it may."""


def captured(step: CapturableStep, device: torch.device) -> Callable[[], None]:
    """The step in its fastest form for the device."""
    return GraphStep(step) if device.type == "cuda" else step


class GraphStep:
    """A step that is captured as a CUDA graph after three eager calls, and replayed from then on.

    The eager calls are steps like all others. Capturing executes nothing, so the graph is replayed at once. A step that
    cannot be captured stays eager, with one warning. Other ranks may replay all the same, as the collectives of both
    forms are equal.

    The graph reads and writes the tensors of the capture: after it, state may only be changed in place.

    Attributes:
        reason: why the step stays eager; "" unless it has to.
    """

    def __init__(self, step: CapturableStep) -> None:
        self._step = step
        self._stream = torch.cuda.Stream()  # of the eager steps too, as gradients and communicators remember theirs
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager_steps = 0
        self.reason = ""

    @property
    def is_replayed(self) -> bool:
        """The step has been captured."""
        return self._graph is not None

    def __call__(self) -> None:
        """Take a step."""
        if self._graph is None and self._eager_steps == EAGER_STEPS:
            self._capture()
        if self._graph is not None:
            self._graph.replay()
            return
        self._eager_steps += 1
        if self._eager_steps == EAGER_STEPS:
            self.reason = _wait_for_gpu(self._run_eagerly)
        else:
            self._run_eagerly()

    def _run_eagerly(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._step()
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self) -> None:
        self.reason = self.reason or self._step.obstacle()
        if not self.reason:
            graph = torch.cuda.CUDAGraph()
            # other threads, such as one that writes a checkpoint, may use the GPU meanwhile
            capture = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
            try:
                with torch.cuda.stream(self._stream), capture:  # torch does not leave the stream if the capture fails
                    self._step()
            except RuntimeError as error:
                # the end of a capture that failed raises an error of its own
                first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
                self.reason = str(first).partition("\n")[0]
                _renew_generator()
            else:
                self._graph = graph
        if self.reason:
            logger.warning("training goes on without a CUDA graph, which is slower: %s", self.reason)


def _renew_generator() -> None:
    """Give the GPU's global generator a new state with the same seed and offset.

    The old one still counts as capturing after a capture that failed, in torch 2.11 at least: the next eager draw, such
    as dropout's, would raise an error.
    """
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())


def _wait_for_gpu(run: Callable[[], None]) -> str:
    """Run, and return the place where the host waited for the GPU, which a captured step cannot do; "" if nowhere."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode")  # it is said to be a prototype
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    waits = [warning for warning in caught if "synchronizing" in str(warning.message)]
    for warning in caught:
        if warning not in waits:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return f"{waits[0].filename}:{waits[0].lineno} waits for the GPU" if waits else ""
