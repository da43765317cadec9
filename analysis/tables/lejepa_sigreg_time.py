"""LeJEPA, Table 6: SIGReg's time, forward and backward, recorded by python -m benchmarks."""

import json
from pathlib import Path

import pandas as pd

from analysis.table.cells import Quantity, TableCell

TITLE = "SIGReg, forward + backward, ms per run"
SWEEPS = ()
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TIME = Quantity(label="ms", metric="ms", spec=".3f")


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per batch, slices and points; a column per machine that benchmarks/results has."""
    del runs  # a benchmark is no sweep
    columns = {file.stem: times(file) for file in sorted(RESULTS.glob("*.json"))}
    columns = {machine: found for machine, found in columns.items() if found}
    rows = [*dict.fromkeys(row for found in columns.values() for row in found)]
    table = [[found.get(row, TableCell()) for found in columns.values()] for row in rows or [(0, 0, 0)]]
    labels: list[tuple[object, ...]] = [*rows] or [("-", "-", "-")]
    index = pd.MultiIndex.from_tuples(labels, names=["N", "num_slices", "points"])
    return pd.DataFrame(table, index=index, columns=pd.Index([*columns], name="machine"), dtype=object)


def times(file: Path) -> dict[tuple[int, int, int], TableCell]:
    """(batch, slices, points) -> the times of its runs."""
    recorded = json.loads(file.read_text()).get("benchmarks", {}) if file.stat().st_size else {}
    return {
        (row["num"], row["num_slices"], row["num_knots"]): TableCell(tuple(1e3 * s for s in row["ours"]), quantity=TIME)
        for row in recorded.get("sigreg_table", [])
    }
