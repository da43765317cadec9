"""Thousands of runs: python -m benchmarks.scale builds a store of 10,000 and times what reads it; and a long search.

The store is MLflow's own, filled by plain SQL: complete configs, 40 metrics and 24 tags per run, and of one metric the
curve of 100 epochs. What is measured runs in a fresh process, whose peak memory counts with all that it
imports: this file imports at its top what a dry run does, and no Ray.
"""

import argparse
import dataclasses
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from mlflow import MlflowClient

from analysis.store.runs import load_histories, load_runs
from analysis.tables import find_table
from benchmarks.comparison import in_bytes, in_time
from benchmarks.filled_store import EPOCHS, drawn_cells, fill, grid_of, search_of
from benchmarks.report import as_markdown
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.store.reader import store_uri

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A line of the table."""

    what: str
    size: str
    seconds: float
    peak: int | None = None
    most: float | None = None  # seconds, the target

    HEADER: ClassVar[tuple[str, ...]] = ("what", "size", "time", "peak memory", "target", "met")
    NOTE: ClassVar[str] = (
        "Each line from a fresh process; peak memory is the process's, with all imports. Reading is the medians of 3, "
        "but for MLflow's client; proposals the median of 5."
    )

    def cells(self) -> tuple[str, ...]:
        """The texts under HEADER."""
        met = "" if self.most is None else "yes" if self.seconds <= self.most else "no"
        peak = "" if self.peak is None else in_bytes(self.peak)
        target = "" if self.most is None else f"at most {self.most:g} s"
        return self.what, self.size, in_time(self.seconds), peak, target, met

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


def plan_rows(side: int) -> list[Measured]:
    """Planning a grid all of whose cells are done."""
    sweep, samples = grid_of(side), []
    for _ in range(3):
        samples.append(_timed(lambda: make_plan(sweep, Path("scale.py"))))
    plan = make_plan(sweep, Path("scale.py"))
    assert (plan.total, plan.todo) == (side**4, 0), "the store does not hold what the sweep asks for"
    size = f"{side**4:,} cells, all in the store"
    return [Measured(what="plan", size=size, seconds=median(samples), peak=peak_of_process(), most=10)]


def table_rows(side: int) -> list[Measured]:
    """The frame and the table of the same sweep."""
    store, size = store_uri(), f"{side**4:,} runs"
    loading = median(_timed(lambda: load_runs("scale", store)) for _ in range(3))
    runs = load_runs("scale", store)
    assert len(runs) == side**4
    building = median(_timed(lambda: find_table("scale", store).render(runs)) for _ in range(3))
    return [
        Measured(what="load_runs", size=size, seconds=loading, peak=peak_of_process(), most=10),
        Measured(what="its table", size=size, seconds=building, peak=peak_of_process(), most=2),
    ]


def curve_rows(side: int) -> list[Measured]:
    """One metric's curves of the same sweep."""
    store = store_uri()
    loading = median(_timed(lambda: load_histories("scale", ["val/probe_top1"], store)) for _ in range(3))
    assert len(load_histories("scale", ["val/probe_top1"], store)) == side**4 * EPOCHS
    size = f"{side**4:,} runs x {EPOCHS} epochs"
    return [Measured(what="load_histories, one metric", size=size, seconds=loading, peak=peak_of_process())]


def client_rows(side: int) -> list[Measured]:
    """The same runs by MLflow's client: what reading was before."""
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("scale")
    assert experiment is not None
    started, count, token = time.perf_counter(), 0, None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        count, token = count + len(page), page.token
        if not token:
            break
    assert count == side**4
    seconds = time.perf_counter() - started
    return [Measured(what="MLflow's client", size=f"{count:,} runs", seconds=seconds, peak=peak_of_process())]


def proposal_rows(trials: int) -> list[Measured]:
    """Proposals of a search whose other trials are done; the first rebuilds the study from the store."""
    from sweeps.engine.search.searcher import CellSearcher

    sweep = search_of(trials)
    plan = make_plan(sweep, Path("scale_search.py"))
    assert sum(len(search.candidates) for search in plan.searches) == trials
    searcher = CellSearcher(
        plan,
        parallel=True,
        announce=lambda cell: None,  # noqa: ARG005
        record=lambda keys: None,  # noqa: ARG005
        admit=lambda cell: True,  # noqa: ARG005
        rungs=lambda key: {},  # noqa: ARG005
        note=logging.getLogger(__name__).warning,
    )
    proposed: list[Any] = []
    first = _timed(lambda: proposed.append(searcher.suggest("first")))
    samples = [_timed(lambda number=number: proposed.append(searcher.suggest(f"trial{number}"))) for number in range(5)]  # type: ignore[misc]
    assert all(isinstance(flat, dict) for flat in proposed), "the search had nothing left to propose"
    size = f"{trials:,} finished trials"
    return [
        Measured(what="first proposal, the study rebuilt", size=size, seconds=first, most=1),
        Measured(what="proposal", size=size, seconds=median(samples), peak=peak_of_process(), most=1),
    ]


def peak_of_process() -> int | None:
    """Bytes that this process has held at its peak; Linux alone. (That of getrusage is at least its parent's.)"""
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), flags=re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(side: int, trials: int) -> list[Measured]:
    """Build the store in a folder of its own and time everything."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ["JEPA_RESULTS"] = folder
        file = Path(folder) / "mlflow.db"
        sweep, search = grid_of(side), search_of(trials)
        sys.stderr.write(f"a store with {side**4:,} + {trials:,} runs ...\n")
        fill(file, sweep, make_plan(sweep, Path("scale.py")).fixed)
        fill(file, search, drawn_cells(search, trials))
        steps = (
            (plan_rows, side),
            (table_rows, side),
            (curve_rows, side),
            (client_rows, side),
            (proposal_rows, trials),
        )
        for step, size in steps:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
                for row in fresh.submit(step, size).result():
                    sys.stderr.write(f"  {'  '.join(cell for cell in row.cells() if cell)}\n")
                    rows.append(row)
    return rows


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="Thousands of runs in the store.")
    parser.add_argument("--quick", action="store_true", help="few runs: does it work? Never recorded")
    quick = parser.parse_args(words).quick
    rows = measure(3, 20) if quick else measure(10, 1000)
    from benchmarks import machine

    device = machine.chosen_device()
    versions = {name: version(name) for name in ("mlflow", "pandas", "optuna", "ray")}
    text = as_markdown(rows, versions | machine.described(device))
    sys.stdout.write(text)
    if not quick:
        file = RESULTS / f"scale-{machine.slug(device)}.md"
        file.write_text(text)
        sys.stderr.write(f"recorded in {file}\n")
    return int(any(row.most is not None and row.seconds > row.most for row in rows))


if __name__ == "__main__":
    sys.exit(main())
