"""Provenance of every number of a table, and the table as files."""

import json
import math
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from analysis.select.selection import records_of
from analysis.store.sources import file_name, shown
from analysis.store.uri import parse_store
from analysis.table.cells import levels
from analysis.table.code_versions import version_of_row
from analysis.table.layout import FinishedTable
from analysis.table.render import render
from analysis.table.significance import cells_of

_ENDINGS = {"md": "md", "tex": "latex", "html": "html", "csv": "csv"}  # of a file -> format


def write_table(built: FinishedTable, folder: Path, *, store: str, bare: bool = False) -> list[Path]:
    """Write folder/label.{md,tex,html,csv} and label.provenance.json. The same runs give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {ending: render(built, format, bare=bare) for ending, format in _ENDINGS.items()}
    texts["provenance.json"] = json.dumps(provenance(built, store), indent=1, sort_keys=True, allow_nan=False)
    files = [folder / f"{file_name(built.label)}.{ending}" for ending in texts]
    for file, text in zip(files, texts.values(), strict=True):
        file.write_text(f"{text}\n", encoding="utf-8")
    return files


def provenance(built: FinishedTable, store: str) -> dict[str, Any]:
    """For every number of a table its runs: id, cell key, seed, value, code version, commit, uncommitted changes."""
    columns = [name for name in ("run_id", "cell_key", "sweep", "commit", "git_dirty") if name in built.runs]
    facts = {
        row["run_id"]: {name: None if pd.isna(row[name]) else str(row[name]) for name in columns}
        | {"code_version": version_of_row(row)}
        for row in records_of(built.runs)
    }
    numbers = []
    for row, column, cell, _ in cells_of(built.frame):
        if not (cell.n or cell.states):
            continue
        runs = zip(cell.run_ids, cell.seeds, cell.values, strict=True) if cell.run_ids else ()
        others = zip(cell.state_ids, cell.states, strict=False)
        numbers.append(
            {
                "row": _place(built.frame.index, row, "row"),
                "column": _place(built.frame.columns, column, "column"),
                "quantity": cell.quantity.label if cell.quantity else "",
                "metric": cell.quantity.metric if cell.quantity else "",
                **{"text": str(cell), "bold": cell.bold, "n": cell.n, "status": cell.status},
                "mean": cell.mean if math.isfinite(cell.mean) else None,
                "std": cell.std if math.isfinite(cell.std) else None,
                "values": [*cell.values],
                "runs": [facts.get(run, {"run_id": run}) | {"seed": seed, "value": value} for run, seed, value in runs],
                "without a number": [facts.get(run, {"run_id": run}) | {"state": state} for run, state in others],
            }
        )
    sweeps = sorted({*built.runs["sweep"]})
    file = parse_store(store).file
    on_disk = file or ("://" not in store and PurePath(store))
    name = on_disk.name if on_disk else shown(store)  # paths differ from machine to machine
    return {"table": built.label, "title": built.title, "store": name, "sweeps": sweeps, "numbers": numbers}


def _place(labels: pd.Index, position: int, otherwise: str) -> dict[str, Any]:
    """Level name -> value, as a plain Python value."""
    values = [value.item() if hasattr(value, "item") else value for value in levels(labels[position])]
    return {str(name or otherwise): value for name, value in zip(labels.names, values, strict=True)}
