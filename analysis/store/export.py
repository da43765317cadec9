"""Export of sweeps as files: python -m analysis export [SWEEP ...]. sources.Export reads them."""

import difflib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from analysis.store.folders import below, is_url, opened_folder
from analysis.store.runs import NothingToShow, has_runs, load_histories, load_runs, sweeps_in
from analysis.store.sources import ABOUT, POINTS, RUNS, digest_of, file_name, open_source, shown

_OF_SWEEP = "sweep."  # columns with one value, which would be most of a CSV's bytes


def export_to(where: str, sweep: str, store: str) -> list[str]:
    """Write an export into the folder of a path or URL. Returns the paths or URLs of the files.

    Raises:
        NothingToShow: see write_export.
        NoFolder: the URL is wrong, or its object store is away.
    """
    parts = urlsplit(where)
    if not is_url(where) or parts.scheme == "file":
        return [*map(str, write_export(sweep, store, Path(unquote(parts.path) if is_url(where) else where)))]
    with tempfile.TemporaryDirectory() as made:
        written, name = write_export(sweep, store, Path(made)), file_name(sweep)
        with opened_folder(where) as files:
            for file in written:  # one after the other: sweep.json comes last
                fs.copy_files(str(file), f"{name}/{file.name}", destination_filesystem=files)
        return [below(where, name, file.name) for file in written]


def sweeps_to_export(names: Sequence[str], scale: str, store: str) -> list[str]:
    """The sweeps of these names, or all that have runs if none is named; at a scale, if one is given.

    Raises:
        NothingToShow: no such store, or one of the names, or any sweep, is not in it.
    """
    source = open_source(store)
    filled = {name: it.tags.get("sweep.scale", "") for name, it in sweeps_in(source).items() if has_runs(it, source)}
    wanted = ["_".join(filter(None, [name, scale])) for name in names]
    for name in wanted:
        if name not in filled:
            close = difflib.get_close_matches(name, filled, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(filled)) or 'none at all'}"
            raise NothingToShow(f"sweep {name} has no runs in {shown(store)}; {remedy}")
    found = wanted or sorted(name for name, of in filled.items() if scale in ("", of))
    if not found:
        at = f" at scale {scale}" if scale else ""
        raise NothingToShow(f"no sweep{at} has runs in {shown(store)} yet; python sweeps/NAME.py makes some")
    return found


def write_export(sweep: str, store: str, folder: Path) -> list[Path]:
    """Write folder/<sweep>/: runs (a row per cell, see load_runs) and history (a row per cell, metric and epoch), each
    as Parquet, which analysis reads in place of a store, and as CSV for other programs; and sweep.json.

    The CSV of the runs leaves out the tags of the sweep, which sweep.json has. The same store gives the same bytes.
    Each file appears whole; sweep.json comes last and has the digests of the others.

    Raises:
        NothingToShow: no such store or sweep, or no run in it.
    """
    source = open_source(store)
    runs, history, experiment = load_runs(sweep, source), load_histories(sweep, store=source), sweeps_in(source)[sweep]
    history = history[["run_id", "metric", "epoch", "value"]]
    columns = [name for name in map(str, runs) if not name.startswith(_OF_SWEEP) and name != "base"]
    to = folder.expanduser() / file_name(sweep)
    to.mkdir(parents=True, exist_ok=True)
    files = {
        RUNS: lambda file: runs.to_parquet(file, index=False),
        "runs.csv": lambda file: runs[columns].to_csv(file, index=False, lineterminator="\n"),
        POINTS: lambda file: history.to_parquet(file, index=False),
        "history.csv": lambda file: history.to_csv(file, index=False, lineterminator="\n", na_rep="nan"),
    }
    for name, write in files.items():
        _write_atomically(to / name, write)
    about = {
        "sweep": sweep,
        "experiment_id": experiment.experiment_id,
        "store": shown(store),
        "runs": len(runs),
        "points": len(history),
        "notes": runs.attrs["notes"],
        "tags": experiment.tags,
        "versions": {name: version(name) for name in ("mlflow", "pandas", "pyarrow")},
        "digests": {name: digest_of(to / name) for name in files},
    }
    text = json.dumps(about, indent=1, sort_keys=True) + "\n"
    _write_atomically(to / ABOUT, lambda file: file.write_text(text))
    return [to / name for name in (*files, ABOUT)]


def _write_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """Write under another name and rename, so that readers find whole files only."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
