"""Chaos: a sweep under faults ends like the undisturbed one, to the byte: python -m benchmarks.chaos [--faults 100]

At random moments a process is killed, the disk filled, the store made to refuse writes, a checkpoint corrupted;
whenever the command has ended, the same command is run again, until it says that everything is done. Then every cell
must be finished, once, with each epoch's metrics once and equal to the undisturbed ones, the tables equal to the byte,
and no process left. One sweep is soon over: there are as many rounds, each from nothing, as the faults take.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.arena import Arena
from benchmarks.faults import FAULTS, WORKER
from benchmarks.peace import Calm, differences, trained_here, undisturbed
from benchmarks.processes import marked

RESULTS = Path(__file__).parent / "results"
RECORDED = 100  # faults, at least, of a run that is kept under results
HUNG_S = 400.0  # without an epoch; nothing lasts so long, not even a start on a busy machine
LAUNCHES = 60  # of one round
SLOW = ("kill -9 of the MLflow server", "a store that is locked")  # not in the short form


@dataclass
class Struck:
    """A fault, and after how many seconds the next epoch ended."""

    kind: str
    at: float = field(default_factory=time.time)  # when it was over
    since: float = field(default_factory=time.time)  # an epoch after this one is of those who came back
    orphans: list[int] = field(
        default_factory=list
    )  # workers that a killed driver has left, which train on for a while
    recovered_s: float | None = None

    def notice(self, last: float) -> None:
        """Look for the first epoch after the fault.

        Args:
            last: when an epoch was last completed.
        """
        if any(Path(f"/proc/{pid}").exists() for pid in self.orphans):
            self.since = time.time()
        elif self.recovered_s is None and last > self.since:
            self.recovered_s = last - self.at


@dataclass
class Storm:
    """What is to happen, and what has happened so far."""

    rng: random.Random
    wanted: int
    kinds: list[str]
    pause_s: float  # at most, between an epoch and the next fault
    early: float  # share of the faults that do not wait for an epoch: they strike while the sweep starts or recovers
    struck: list[Struck] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)  # exit codes of all launches
    problems: list[str] = field(default_factory=list)
    rounds: int = 0
    _deck: list[str] = field(default_factory=list)

    def draw(self) -> str:
        """The next kind: in random order, every kind as often."""
        if not self._deck:
            self._deck = self.rng.sample(self.kinds, len(self.kinds))
        return self._deck.pop()

    def put_back(self, kind: str) -> None:
        """It could not strike just now."""
        self._deck.insert(0, kind)

    @property
    def over(self) -> bool:
        return len(self.struck) >= self.wanted


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0 when every check holds, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--faults", type=int, default=100, metavar="N", help=f"from {RECORDED} on it is recorded")
    parser.add_argument("--quick", action="store_true", help="one fault of most kinds, no server")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    began = time.monotonic()
    kinds = [kind for kind in FAULTS if not (options.quick and kind in SLOW)]
    wanted = len(kinds) if options.quick else options.faults
    storm = Storm(
        random.Random(options.seed),
        wanted,
        kinds,
        pause_s=1.0 if options.quick else 4.0,
        early=0.0 if options.quick else 0.15,
    )
    size = {"cells": 4, "epochs": 8} if options.quick else {"cells": 12, "epochs": 8}
    with tempfile.TemporaryDirectory(prefix="jepa-chaos-", ignore_cleanup_errors=True) as folder:
        _say(f"in peace: {size['cells']} cells of {size['epochs']} epochs, and a reference")
        calm = trained_here(Path(folder), **size) if options.quick else undisturbed(Path(folder), **size)
        while not storm.over:
            storm.rounds += 1
            arena = Arena(Path(folder) / f"round-{storm.rounds}", **size, server=not options.quick, disk=True)
            before = len(storm.problems)
            try:
                weather(arena, storm)
                storm.problems += [f"round {storm.rounds}: {text}" for text in differences(arena, calm)]
            finally:
                if len(storm.problems) > before:
                    _keep(arena)
                left = arena.close()
            storm.problems += [f"round {storm.rounds}: a process is left: {title}" for title in left]
            arena.remove()
    text = chaos_report(storm, calm, time.monotonic() - began)
    sys.stdout.write(text)
    if wanted >= RECORDED:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"chaos-{machine.slug(torch.device('cpu'))}.md").write_text(text)
    return 1 if storm.problems else 0


def weather(arena: Arena, storm: Storm) -> None:
    """Launch, strike, launch again, until the command ends with 0, or gives up."""
    first = len(storm.struck)
    for _ in range(LAUNCHES):
        before = len(storm.struck)
        arena.launch()
        code = _strike_until_it_ends(arena, storm, first)
        storm.codes.append(code)
        _say(f"round {storm.rounds}: the command ended with {code}; {len(storm.struck)} of {storm.wanted} faults")
        if code == 0:
            return
        if code > 0 and before == len(storm.struck):
            storm.problems.append(f"round {storm.rounds}: exit code {code} in peace: {_last_line(arena)}")
            if code == 1:  # cells that count as failed: by the rule of the same command, nothing more would happen
                arena.launch("--retry", "failed")
                assert arena.driver is not None
                arena.driver.wait()
                return
        time.sleep(storm.rng.uniform(0, 2))
    storm.problems.append(f"round {storm.rounds}: not finished after {LAUNCHES} launches")


def _strike_until_it_ends(arena: Arena, storm: Storm, first: int) -> int:
    """The exit code of the command under its faults.

    Args:
        first: the number of this round's first fault.
    """
    assert arena.driver is not None
    heard = time.time()
    due, early = _next(storm, heard)
    while (code := arena.driver.poll()) is None:
        time.sleep(0.05)
        now, last = time.time(), arena.progress()
        for struck in storm.struck[first:]:
            struck.notice(last)
        if now - max(heard, last) > HUNG_S:
            storm.problems.append(f"round {storm.rounds}: no epoch for {HUNG_S:.0f} s after {storm.struck[-1:]}")
            arena.driver.kill()
        if storm.over or not (early or last > heard) or now < max(due, last if not early else due):
            continue
        kind = storm.draw()
        if FAULTS[kind](arena, storm.rng):
            orphans = (
                [worker.pid for worker in marked(arena.mark, title=WORKER)] if arena.driver.poll() is not None else []
            )
            storm.struck.append(Struck(kind, orphans=orphans))
            _say(f"  {len(storm.struck):>3}  {kind}")
        else:
            storm.put_back(kind)
        heard = time.time()
        due, early = _next(storm, heard)
    return code


def _next(storm: Storm, now: float) -> tuple[float, bool]:
    """The earliest moment of the next fault, and whether it strikes even if no epoch has ended since the last one."""
    early = storm.rng.random() < storm.early
    return now + storm.rng.uniform(0, 5 * storm.pause_s if early else storm.pause_s), early


def chaos_report(storm: Storm, calm: Calm, seconds: float) -> str:
    """A table of the faults, what the commands answered, and what is wrong."""
    lines = ["| fault | struck | next epoch after, median s | worst s |", "|:---|---:|---:|---:|"]
    for kind in storm.kinds:
        these = [struck for struck in storm.struck if struck.kind == kind]
        times = [struck.recovered_s for struck in these if struck.recovered_s is not None]
        told = f"{statistics.median(times):.1f} | {max(times):.1f}" if times else "- | -"
        lines.append(f"| {kind} | {len(these)} | {told} |")
    codes = ", ".join(f"{code}: {storm.codes.count(code)}" for code in sorted(set(storm.codes)))
    lines += [
        "",
        f"{len(storm.struck)} faults in {storm.rounds} sweeps, {seconds / 60:.0f} minutes; exit codes {codes}.",
    ]
    if storm.problems:
        lines += ["", f"{len(storm.problems)} checks failed:", "", *[f"- {text}" for text in storm.problems]]
    else:
        tables = f"; the table equal to the byte as {' and '.join(calm.tables)}" if calm.tables else ""
        lines += [f"Every cell finished, once; each epoch's metrics once, and equal{tables}; no process left."]
    described = machine.described(torch.device("cpu"))
    return "\n".join([*lines, "", ", ".join(f"{name} {value}" for name, value in described.items())]) + "\n"


def _keep(arena: Arena) -> None:
    """What to look at, where checks failed."""
    kept = Path(tempfile.mkdtemp(prefix="jepa-chaos-kept-"))
    for file in (arena.log, arena.database):
        if file.exists():
            (kept / file.name).write_bytes(file.read_bytes())
    _say(f"kept in {kept}")


def _last_line(arena: Arena) -> str:
    return arena.log.read_text(errors="replace").strip().rpartition("\n")[2]


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {line}\n")


if __name__ == "__main__":
    sys.exit(main())
