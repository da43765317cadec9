"""A sweep under faults ends like an undisturbed one: same cells, metrics and tables, and no process is left.

Whenever the command ends, it is run again, until all faults have struck and it has succeeded.

Run: python -m pytest tests/slow/chaos
One fault of each kind strikes; JEPA_CHAOS_FAULTS=100 makes it 100.
"""

import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_sweep import ChaosSweep
from faults import FAULTS, Fault

LAUNCHES = 10  # of one sweep
LIMIT_S = 400.0  # without an epoch; includes a start on a busy machine


def strike(sweep: ChaosSweep, faults: list[Fault], rng: random.Random) -> int:
    """Launch the command and let faults strike, each after a new epoch. Returns the exit code."""
    driver = sweep.launch()
    before, due = time.time(), time.time() + rng.uniform(0, 1)
    while (code := driver.poll()) is None:
        time.sleep(0.05)
        last = sweep.last_epoch()
        if time.time() > max(before, last) + LIMIT_S:
            driver.kill()
            pytest.fail(f"no epoch for {LIMIT_S:.0f} s; see {sweep.log}")
        if faults and last > before and time.time() > due:
            if faults[0](sweep, driver, rng):
                del faults[0]
            before, due = time.time(), time.time() + rng.uniform(0, 1)
    return code


@pytest.fixture
def new_sweep(tmp_path: Path) -> Iterator:
    """A function that makes sweeps, whose processes end with the test."""
    made: list[ChaosSweep] = []

    def new() -> ChaosSweep:
        made.append(ChaosSweep(tmp_path / f"sweep-{len(made)}"))
        return made[-1]

    yield new
    left = [title for sweep in made for title in sweep.end()]
    assert left == []


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_sweep_under_faults_ends_like_an_undisturbed_one(new_sweep):
    count = int(os.environ.get("JEPA_CHAOS_FAULTS", len(FAULTS)))
    rng, faults = random.Random(0), [*itertools.islice(itertools.cycle(FAULTS), count)]
    calm = new_sweep()
    assert calm.launch().wait() == 0, calm.log.read_text()
    assert [status for _, status, _ in calm.cells()] == 3 * ["finished"]
    while faults:  # a sweep may be complete before all of them have struck
        sweep, launches = new_sweep(), 0
        while strike(sweep, faults, rng) != 0:
            launches += 1
            assert launches < LAUNCHES, sweep.log.read_text()
        assert sweep.cells() == calm.cells()
        assert sweep.table() == calm.table()
