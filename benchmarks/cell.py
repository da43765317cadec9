"""A whole cell, from its config to its last report: seconds by phase, next to those of another checkout.

    python -m benchmarks.cell [--quick] [--samples N] [--against CHECKOUT] [key=value ...]

The cell is that of digits at scale mini, with the assigned fields changed. Each sample is a process of its own with one
thread, and the checkouts take turns. On a CPU a sample is the process's CPU time, which other load hardly moves; on a
GPU it is the time that passes, and a phase has the work that it waits for. Imports are not in it.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, ClassVar
from unittest import mock

import torch

from benchmarks import machine
from benchmarks.report import as_markdown
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config.flat import parse, unflatten
from jepa_train.config.scales import LEJEPA
from jepa_train.data.splits import load_splits
from jepa_train.evaluation.evaluate import embed
from jepa_train.evaluation.protocols import PROTOCOLS
from jepa_train.train.loop import train
from jepa_train.train.trainer import Trainer

ROOT = Path(machine.__file__).parents[1]
QUICK = ("epochs=1", "optim.warmup_epochs=0")
TIMES = {"train/images_per_s", "train/peak_memory_gb"}  # may differ between checkouts
WHOLE, REST = "whole cell", "rest"


@dataclass(frozen=True)
class Phase:
    """Samples of a phase in seconds; those of the other checkout, if there is one, were taken in between.

    Args:
        share: of the cell's median.
    """

    name: str
    ours: tuple[float, ...]
    before: tuple[float, ...]
    share: float

    HEADER: ClassVar[tuple[str, ...]] = ("phase", "before, s", "now, s", "before / now", "quartiles", "share", "n")
    NOTE: ClassVar[str] = "Medians of n samples in turn; the quartiles are of the ratios of neighbours."

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        now = median(self.ours)
        ends = f"{now:.3f}", f"{self.share:.0%}", str(len(self.ours))
        if not self.before or not all(self.ours):
            return (self.name, "", ends[0], "", "", *ends[1:])
        before = median(self.before)
        ratios = [old / new for old, new in zip(self.before, self.ours, strict=True)]
        low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return (self.name, f"{before:.3f}", ends[0], f"{before / now:.2f}", f"{low:.2f} to {high:.2f}", *ends[1:])

    def record(self) -> dict[str, Any]:
        """The fields."""
        return vars(self)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 0, or 1 if the two checkouts report different metrics."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cell", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="a field of the config")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="folder of another version of the code")
    parser.add_argument("--samples", type=int, default=5, metavar="N", help="of each checkout, in turn; default 5")
    parser.add_argument("--quick", action="store_true", help="one sample of one epoch, to see that it runs")
    parser.add_argument("--sample", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.sample:
        sys.stdout.write(json.dumps(sample(options.assignments)))
        return 0
    checkouts = [ROOT] if options.against is None else [options.against.resolve(), ROOT]
    words = [*options.assignments, *(QUICK if options.quick else ())]
    found: list[list[dict[str, Any]]] = [[] for _ in checkouts]
    for number in range(1 if options.quick else options.samples):
        for checkout, samples in zip(checkouts, found, strict=True):
            samples.append(_in_process(checkout, words))
            sys.stderr.write(f"  {number + 1}. {checkout}: {samples[-1]['seconds'][WHOLE]:.2f} s\n")
    sys.stdout.write(as_markdown(_phases(found), machine.described(machine.chosen_device())))
    metrics = [one["metrics"] for samples in found for one in samples]
    names = {name for one in metrics for name in one}
    other = sorted(name for name in names if any(one.get(name) != metrics[0].get(name) for one in metrics))
    sys.stdout.write(f"\nmetrics that differ: {', '.join(other) or 'none'}\n")
    return 1 if other else 0


def sample(words: Sequence[str]) -> dict[str, Any]:
    """Train the cell in this process: {"seconds": {phase: ..}, "metrics": those of the last report but times}."""
    base = LEJEPA["mini"]
    config = unflatten(parse(words, base=base), base=base)
    clock = Clock(time.perf_counter if torch.cuda.is_available() else time.process_time)
    protocols = {name: clock.timed(f"protocol {name}", run) for name, run in PROTOCOLS.items()}
    with (
        tempfile.TemporaryDirectory() as place,
        mock.patch("jepa_train.train.loop.load_splits", clock.timed("data", load_splits)),
        mock.patch.object(Trainer, "__init__", clock.timed("network", Trainer.__init__)),
        mock.patch.object(Trainer, "train_step", clock.timed("steps", Trainer.train_step)),
        mock.patch("jepa_train.evaluation.evaluate.embed", clock.timed("embeddings", embed)),
        mock.patch.dict(PROTOCOLS, protocols),
        mock.patch.object(Checkpoints, "save", clock.timed("checkpoints", Checkpoints.save)),
        mock.patch.object(Checkpoints, "finish", clock.timed("checkpoints", Checkpoints.finish)),
    ):
        outcome = clock.timed(REST, train)(config, checkpoints=Path(place))
    seconds = {WHOLE: sum(clock.seconds.values()), **clock.seconds}
    return {"seconds": seconds, "metrics": {k: v for k, v in outcome.metrics.items() if k not in TIMES}}


class Clock:
    """Seconds of each phase, without those of the phases that it calls."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._now = now
        self._inner = [0.0]  # seconds of the phases called so far by each one in progress

    def timed(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, counted for the phase."""

        @functools.wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            started = self._now()
            self._inner.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                passed = self._now() - started
                self.seconds[phase] += passed - self._inner.pop()
                self._inner[-1] += passed

        return counted


def _in_process(checkout: Path, words: Sequence[str]) -> dict[str, Any]:
    """A sample of a checkout's code, by the text of this file, which may not be there."""
    command = [sys.executable, "-P", "-c", Path(__file__).read_text(), "--sample", *words]
    paths = os.pathsep.join([str(checkout), str(ROOT)])
    env = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _phases(found: Sequence[Sequence[Mapping[str, Any]]]) -> list[Phase]:
    """The rows, the whole cell first and then from long to short."""
    *before, ours = [[one["seconds"] for one in samples] for samples in found]
    rows = {}
    for name in ours[0]:
        times = tuple(one[name] for one in ours)
        earlier = tuple(one.get(name, 0.0) for samples in before for one in samples)
        rows[name] = Phase(name, times, earlier, median(times) / median(one[WHOLE] for one in ours))
    return sorted(rows.values(), key=lambda row: row.share, reverse=True)


if __name__ == "__main__":
    sys.exit(main())
