"""How long things take: calls interleaved (A B A B ...), so that what else the machine does falls on all alike."""

import contextlib
import ctypes
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How many repeats: as many rounds of all calls as fit into so many seconds, within bounds."""

    least: int = 5
    most: int = 30
    seconds: float = 20.0
    sample: float = 0.05  # seconds that one sample takes at least: a short call is repeated and its time divided

    def rounds(self, seconds_per_round: float) -> int:
        """How often to go round calls that together take so long."""
        return min(max(int(self.seconds / max(seconds_per_round, 1e-9)), self.least), self.most)


QUICK = Effort(least=3, most=3, seconds=0.0, sample=0.0)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Options common to all benchmarks."""

    device: torch.device
    quick: bool = False  # tiny shapes, few repeats: a look at whether it runs, no measurement

    @property
    def effort(self) -> Effort:
        """The repeats of a comparison."""
        return QUICK if self.quick else Effort()

    def target(self, targets: Mapping[str, float]) -> float | None:
        """That of the device's type; none when quick: the targets are for the full shapes."""
        return None if self.quick else targets[self.device.type]


def interleaved(
    calls: Sequence[Call], effort: Effort, device: torch.device, *, clock: Callable[[], float] = time.perf_counter
) -> list[tuple[float, ...]]:
    """Seconds per call, one tuple of samples for each of the calls, in step: samples of the same place are neighbours.

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


def _sample(call: Call, count: int, device: torch.device, clock: Callable[[], float]) -> float:
    give_back()
    if count > 1:  # a short call: caches and memory are as they are after the one before
        call()
    _synchronize(device)
    started = clock()
    for _ in range(count):
        call()
    _synchronize(device)
    return (clock() - started) / count


def give_back() -> None:
    """Have the C library return the memory that it keeps for later; otherwise it does so in somebody's next call."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _synchronize(device: torch.device) -> None:
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
