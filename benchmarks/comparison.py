"""Row of the main table: samples of a reference and of ours, on the same work."""

import dataclasses
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Samples of both sides in seconds per call; samples with the same index are neighbours in time.

    Args:
        against: what the reference is.
        is_cost: the reference is a floor, and the ratio is ours / reference, better when lower; else it is
            reference / ours, better when higher.
        target: the ratio to reach, at most or at least; None where none is set.
        memory: peak extra bytes of (reference, ours); None where it was not measured.
        items: what one call works through (views, images), for the rates; 0 where that says nothing.
    """

    what: str
    against: str
    shape: str
    reference: tuple[float, ...]
    ours: tuple[float, ...]
    is_cost: bool = False
    target: float | None = None
    memory: tuple[int, int] | None = None
    items: int = 0

    HEADER: ClassVar[tuple[str, ...]] = (
        "what",
        "against",
        "shape",
        "reference",
        "ours",
        "ratio",
        "quartiles",
        "n",
        "memory, reference",
        "memory, ours",
        "target",
        "met",
    )
    NOTE: ClassVar[str] = (
        "Medians of n interleaved repeats. Ratio: reference / ours, of the medians; with a target of 'at most', or of "
        "'floor', ours / reference. Quartiles: of the ratios of neighbouring repeats. Memory: peak beyond what was in "
        "use before the call."
    )

    @property
    def ratio(self) -> float:
        """Ratio of the medians."""
        return self._ratio(median(self.reference), median(self.ours))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the ratios of neighbouring samples."""
        ratios = [self._ratio(*pair) for pair in zip(self.reference, self.ours, strict=True)]
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        return low, high

    @property
    def met(self) -> bool | None:
        """True if the ratio reaches the target; None without a target."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.is_cost else self.ratio >= self.target

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        low, high = self.quartiles
        bound = "at most" if self.is_cost else "at least"
        floor = "floor" if self.is_cost else ""
        met = {None: "", True: "yes", False: "no"}[self.met]
        return (
            self.what,
            self.against,
            self.shape,
            self._side(self.reference),
            self._side(self.ours),
            f"{self.ratio:.2f}",
            f"{low:.2f} to {high:.2f}",
            str(len(self.ours)),
            *(map(in_bytes, self.memory) if self.memory else ("", "")),
            floor if self.target is None else f"{bound} {self.target:g}",
            met,
        )

    def record(self) -> dict[str, Any]:
        """Fields and derived numbers, for the JSON file."""
        derived = {
            "reference_median": median(self.reference),
            "ours_median": median(self.ours),
            "ratio": self.ratio,
            "quartiles": self.quartiles,
            "met": self.met,
        }
        return dataclasses.asdict(self) | derived

    def _ratio(self, reference: float, ours: float) -> float:
        return ours / reference if self.is_cost else reference / ours

    def _side(self, samples: tuple[float, ...]) -> str:
        seconds = median(samples)
        return f"{in_time(seconds)} ({self.items / seconds:,.0f}/s)" if self.items else in_time(seconds)


def in_time(seconds: float) -> str:
    """Format seconds with three digits and a unit: 12.3 ms."""
    return _scaled(seconds, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)))


def in_bytes(count: float) -> str:
    """Format bytes with three digits and a unit: 1.23 GB."""
    return _scaled(count, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)))


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    unit, size = next((pair for pair in units if value >= pair[1]), units[-1])
    digits = f"{value / size:.3g}" if value < 1000 * size else f"{value / size:.0f}"
    return f"{digits} {unit}"
