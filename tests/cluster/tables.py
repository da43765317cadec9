"""What an export says of every cell, but for what no two launches have in common: times, memory, ids."""

import csv
from pathlib import Path

_OF_THE_MACHINE = ("train/images_per_s", "train/peak_memory_gb")
_SPLITS = ("train/", "val/", "test/", "target/")


def results_of(export: Path) -> dict[str, dict[str, str]]:
    """Cell key -> its status and metrics, as the CSV has them, to the last digit."""
    with (export / "runs.csv").open() as stream:
        return {row["cell_key"]: _told(row) for row in csv.DictReader(stream)}


def curves_of(export: Path) -> dict[tuple[str, str, str], str]:
    """(cell key, metric, epoch) -> value."""
    with (export / "runs.csv").open() as stream:
        cells = {row["run_id"]: row["cell_key"] for row in csv.DictReader(stream)}
    with (export / "history.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if _compared(row["metric"])]
    return {(cells[row["run_id"]], row["metric"], row["epoch"]): row["value"] for row in rows}


def _told(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name in ("status", "epoch") or _compared(name)}


def _compared(name: str) -> bool:
    return name.startswith(_SPLITS) and name not in _OF_THE_MACHINE
