"""Where every number of a table comes from, and the table as files."""

import html
import json
import math
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from analysis.select.selection import records_of
from analysis.store.sources import file_name
from analysis.table.build import FinishedTable
from analysis.table.cells import levels
from analysis.table.significance import cells_of

_ENDINGS = {"md": "md", "tex": "latex", "html": "html", "csv": "csv"}  # of a file -> format


def write_table(built: FinishedTable, label: str, folder: Path, *, store: str, ui: str) -> list[Path]:
    """Write folder/label.{md,tex,html,csv} and label.provenance.json. The same runs give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {ending: built.render(format, ui=ui) for ending, format in _ENDINGS.items()}
    head = f'<meta charset="utf-8">\n<title>{html.escape(label)}</title>'
    texts["html"] = (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{texts["html"]}\n</body>\n</html>'
    )
    texts["provenance.json"] = json.dumps(provenance(built, label, store), indent=1, sort_keys=True, allow_nan=False)
    files = [folder / f"{file_name(label)}.{ending}" for ending in texts]
    for file, text in zip(files, texts.values(), strict=True):
        file.write_text(f"{text}\n", encoding="utf-8")
    return files


def provenance(built: FinishedTable, label: str, store: str) -> dict[str, Any]:
    """For every number of a table its runs: id, cell key, seed, value, commit and whether the tree was as committed."""
    facts = _facts(built.runs)
    numbers = []
    for row, column, cell, _ in cells_of(built.frame):
        runs = zip(cell.run_ids, cell.seeds, cell.values, strict=True) if cell.run_ids else ()
        numbers.append(
            {
                "row": _named(built.frame.index, row, "row"),
                "column": _named(built.frame.columns, column, "column"),
                "quantity": cell.quantity.label if cell.quantity else "",
                "metric": cell.quantity.metric if cell.quantity else "",
                **{"text": cell.text(), "bold": cell.bold, "n": cell.n, "status": cell.status},
                **{"mean": _number(cell.mean), "std": _number(cell.std), "values": [*cell.values]},
                "runs": [facts.get(run, {"run_id": run}) | {"seed": seed, "value": value} for run, seed, value in runs],
                "without a number": [
                    facts.get(run, {"run_id": run}) | {"state": state}
                    for run, state in zip(cell.state_ids, cell.states, strict=False)
                ],
            }
        )
    shown = [number for number in numbers if number["n"] or number["status"]]
    sweeps = sorted({*built.runs["sweep"]})
    return {"table": label, "title": built.title, "store": store_name(store), "sweeps": sweeps, "numbers": shown}


def store_name(store: str) -> str:
    """A store without passwords and without the path to it, which differs from machine to machine."""
    parts = urlsplit(store)
    if not parts.scheme or parts.scheme == "sqlite":
        return PurePath(parts.path or store).name
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _facts(runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Run id -> what is to be said of the run."""
    columns = [name for name in ("run_id", "cell_key", "sweep", "commit", "git_dirty") if name in runs]
    return {
        row["run_id"]: {name: None if pd.isna(value) else str(value) for name, value in row.items()}
        for row in records_of(runs[columns])
    }


def _named(labels: pd.Index, position: int, otherwise: str) -> dict[str, Any]:
    values = levels(labels[position])
    return {str(name or otherwise): _plain(value) for name, value in zip(labels.names, values, strict=True)}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
