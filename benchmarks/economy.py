"""What a search saves: python -m benchmarks.economy replays searches over a grid whose learning curves are recorded.

The real searcher and the real early stopping, many times, with other seeds; what is counted is training steps until a
run has finished with the best val accuracy of the whole grid.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import ClassVar, Literal

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from benchmarks import machine
from benchmarks.curves import METRIC, SPACE, VAL_FRACTIONS, Curves, read, record, synthetic
from benchmarks.report import as_markdown
from benchmarks.simulation import SimulatedSweep
from sweeps.engine.spec.objective import Asha
from sweeps.engine.spec.sweep import Sweep

RESULTS = Path(__file__).parent / "results"
TARGET = 0.3
SEEDS = 50
STOPPING = Asha(first=6, eta=3)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A way to search the grid."""

    name: str
    sampler: Literal["tpe", "random"] = "tpe"
    stopping: Asha | None = None
    lanes: int = 1


DRAWN = (
    Strategy(name="TPE + early stopping", stopping=STOPPING),
    Strategy(name="TPE"),
    Strategy(name="random", sampler="random"),
)
OTHERS = (
    Strategy(name="random + early stopping", sampler="random", stopping=STOPPING),
    *(
        Strategy(name=f"TPE + Asha(first={first}, eta={eta})", stopping=Asha(first=first, eta=eta))
        for first, eta in ((1, 3), (2, 3), (3, 3), (9, 3), (6, 2), (6, 4))
    ),
    Strategy(name="TPE + early stopping", stopping=STOPPING, lanes=4),
    Strategy(name="TPE", lanes=4),
    Strategy(name="random", sampler="random", lanes=4),
)


@dataclass(frozen=True, kw_only=True)
class Economy:
    """What replays of one strategy came to; fractions of the grid's steps, infinite where the best was missed."""

    strategy: Strategy
    val_images: int
    reached: list[float]  # by seed: when a run had finished with the grid's best
    whole: list[float]  # by seed: all of the search
    course: list[list[tuple[float, float]]]  # by seed: after so much, the best finished run so far

    HEADER: ClassVar[tuple[str, ...]] = (
        "search",
        "lanes",
        "val images",
        "median",
        "quartiles",
        "reached by",
        "whole search",
    )
    NOTE: ClassVar[str] = (
        "Training steps until a run has finished with the best val accuracy of the 48-cell grid, as a fraction of the "
        "grid's; median and quartiles over seeds of the search. Whole search: all 48 points, mean over seeds. Every "
        "cell was trained once, with one seed: by 216 images of val one cell leads by one image, by 575 three lead. "
        f"Asha's settings were compared on these very grids; early stopping without further words is {STOPPING}."
    )

    def cells(self) -> tuple[str, ...]:
        """The texts under HEADER."""
        low, median, high = quartiles(self.reached)
        found = sum(value < float("inf") for value in self.reached)
        return (
            self.strategy.name,
            str(self.strategy.lanes),
            str(self.val_images),
            _percent(median),
            f"{_percent(low)} to {_percent(high)}",
            f"{found} of {len(self.reached)}",
            _percent(sum(self.whole) / len(self.whole)),
        )

    def record(self) -> dict[str, object]:
        """The same in numbers."""
        return {
            "strategy": self.strategy.name,
            "val_images": self.val_images,
            "reached": self.reached,
            "whole": self.whole,
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The first, the median and the third, each a value that occurred or, of two finite ones, between."""
    finite = [min(value, 1e9) for value in values]
    low, median, high = quantiles(finite, n=4, method="inclusive")
    return tuple(float("inf") if value > 1e3 else value for value in (low, median, high))  # type: ignore[return-value]


def replayed(strategy: Strategy, curves: Curves, seeds: int) -> Economy:
    """Searches over all points of the grid, each from another seed: a sampler's seed depends on the sweep's name."""
    reached, whole, courses = [], [], []
    for seed in range(seeds):
        sweep = Sweep(
            name=f"economy_{seed}",
            purpose="",
            base=curves.base,
            space=SPACE,
            trials=len(curves.curves),
            sampler=strategy.sampler,
            early_stopping=strategy.stopping,
        )
        search = SimulatedSweep(sweep, curves.base, curves.reports, lanes=strategy.lanes)
        search.run()
        course, best = [(0.0, 0.0)], 0.0
        for epochs, entry in search.ends:
            if entry.status == "finished" and entry.metrics[METRIC] > best:
                best = entry.metrics[METRIC]
                course.append((epochs / curves.total, best))
        reached.append(course[-1][0] if best >= curves.best else float("inf"))
        whole.append(search.epochs / curves.total)
        courses.append(course)
    return Economy(strategy=strategy, val_images=curves.val_images, reached=reached, whole=whole, course=courses)


def drawn(economies: Sequence[Economy], best: float) -> Figure:
    """The best val accuracy so far over the steps spent: median over seeds, quartiles shaded."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    places = [number / 200 for number in range(201)]
    for economy in economies:
        spread = [quantiles([_at(course, x) for course in economy.course], n=4, method="inclusive") for x in places]
        low, median, high = ([100 * three[part] for three in spread] for part in range(3))
        (line,) = axes.plot(places, median, label=economy.strategy.name)
        axes.fill_between(places, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.axhline(100 * best, color="grey", linestyle=":", label="best of the grid")
    axes.set(
        xlabel="training steps, as a fraction of the whole grid's",
        ylabel="best val accuracy so far (%)",
        xlim=(0, 1),
        ylim=(100 * best - 6, 100 * best + 0.5),
    )
    axes.legend(loc="lower right")
    return figure


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.economy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="curves from a formula, seconds; nothing is recorded")
    parser.add_argument("--record", action="store_true", help="train the cells whose curves are missing, first")
    options = parser.parse_args(words)
    for images in VAL_FRACTIONS if options.record else ():
        record(images, RESULTS, sys.stderr.write)
    warnings.simplefilter("ignore")
    tables = [synthetic()] if options.quick else [read(images, RESULTS) for images in VAL_FRACTIONS]
    strategies, seeds = (DRAWN, 3) if options.quick else ((*DRAWN, *OTHERS), SEEDS)
    economies: list[Economy] = []
    for curves in tables:
        for strategy in strategies:
            economies.append(replayed(strategy, curves, seeds))
            sys.stderr.write(f"  {'  '.join(economies[-1].cells())}\n")
    device = torch.device("cpu")
    text = as_markdown(economies, machine.described(device))
    medians = [quartiles(economy.reached)[1] for economy in economies if economy.strategy == DRAWN[0]]
    met = "met" if max(medians) <= TARGET else "missed"
    text += f"\nTarget: {DRAWN[0].name} by {_percent(TARGET)} of the grid's steps, median: {met}.\n"
    sys.stdout.write(text)
    if not options.quick:
        (RESULTS / f"economy-{machine.slug(device)}.md").write_text(text)
        mpl.rcParams["svg.hashsalt"] = "economy"  # the same file from the same curves
        for ending in ("png", "svg"):
            figure = drawn(economies[: len(DRAWN)], tables[0].best)
            figure.savefig(RESULTS / f"economy.{ending}", dpi=150, metadata={"Date": None} if ending == "svg" else {})
    return 0


def _at(course: Sequence[tuple[float, float]], place: float) -> float:
    return max(best for spent, best in course if spent <= place)


def _percent(fraction: float) -> str:
    return "never" if fraction == float("inf") else f"{100 * fraction:.0f} %"


if __name__ == "__main__":
    sys.exit(main())
