"""Timing by interleaved calls (A B A B ...), so that other load on the machine affects all alike."""

import contextlib
import ctypes
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from jepa_train.train.cuda_graph import GraphStep

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Number of repeats: as many rounds of all calls as fit into a time, within bounds."""

    least: int = 5
    most: int = 30
    seconds: float = 20.0
    sample: float = 0.05  # minimum seconds per sample; a shorter call is repeated and its time divided

    def rounds(self, seconds_per_round: float) -> int:
        """Number of rounds, given the time of one round of all calls."""
        return min(max(int(self.seconds / max(seconds_per_round, 1e-9)), self.least), self.most)


QUICK = Effort(least=3, most=3, seconds=0.0, sample=0.0)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Options common to all benchmarks."""

    device: torch.device
    quick: bool = False  # tiny shapes and few repeats, to see that it runs
    seconds: float = 20.0  # of a comparison
    graphs: bool = False  # on a GPU, time replays of CUDA graphs in place of calls

    @property
    def effort(self) -> Effort:
        """Repeats of a comparison."""
        return QUICK if self.quick else Effort(seconds=self.seconds)

    def form(self, call: Call) -> Call:
        """The call as it is to be timed."""
        return replayed(call, self.device) if self.graphs else call

    @property
    def label(self) -> str:
        """End of the names of rows."""
        return ", replayed" if self.graphs else ""

    def target(self, targets: Mapping[str, float]) -> float | None:
        """Target of the device's type; None if quick, since targets are for full shapes."""
        return None if self.quick else targets[self.device.type]


def interleaved(
    calls: Sequence[Call], effort: Effort, device: torch.device, *, clock: Callable[[], float] = time.perf_counter
) -> list[tuple[float, ...]]:
    """Time calls in turn. Returns a tuple of samples per call, in seconds; equal indices are neighbours in time.

    Each call runs twice before it counts, once to warm up and once to see how long it takes. The collector of
    reference cycles runs before and rests meanwhile; a GPU is synchronised at both ends of a sample.
    """
    for call in calls:
        call()
    first = [_sample(call, 1, device, clock) for call in calls]
    counts = [max(1, math.ceil(effort.sample / max(seconds, 1e-9))) for seconds in first]
    rounds = effort.rounds(sum(seconds * count for seconds, count in zip(first, counts, strict=True)))
    with _no_collection():
        samples = [
            [_sample(call, count, device, clock) for call, count in zip(calls, counts, strict=True)]
            for _ in range(rounds)
        ]
    return list(zip(*samples, strict=True))


@dataclass(frozen=True)
class _Replayable:
    """A call as cuda_graph.py takes it."""

    call: Call

    def __call__(self) -> None:
        self.call()

    def obstacle(self) -> str:
        return ""


def replayed(call: Call, device: torch.device) -> Call:
    """The call as a CUDA graph; on a CPU the call itself.

    Raises:
        RuntimeError: it cannot be captured, and why.
    """
    if device.type != "cuda":
        return call
    step = GraphStep(_Replayable(call))
    while not step.is_replayed:
        step()
        if step.reason:
            raise RuntimeError(f"not captured: {step.reason}")
    return step


def _sample(call: Call, count: int, device: torch.device, clock: Callable[[], float]) -> float:
    give_back()
    if count > 1:  # a short call: caches and memory are as they are after the one before
        call()
    synchronize(device)
    started = clock()
    for _ in range(count):
        call()
    synchronize(device)
    return (clock() - started) / count


def give_back() -> None:
    """Return freed memory to the system, which the C library would otherwise do within a later call."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; a CPU has always finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
