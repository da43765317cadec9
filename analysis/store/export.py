"""Export of sweeps as files: python -m analysis export [SWEEP ...]. sources.Export reads them."""

import hashlib
import json
from importlib.metadata import version

from analysis.store.folders import below, opened_folder
from analysis.store.runs import NothingToShow, all_runs, has_runs, histories_of, sweeps_in
from analysis.store.sources import ABOUT, POINTS, RUNS, file_name, open_source, shown

_OF_SWEEP = "sweep."  # columns with one value, which would be most of a CSV's bytes


def sweeps_to_export(scale: str, store: str) -> list[str]:
    """The sweeps that have runs; at a scale, if one is given.

    Raises:
        NothingToShow: no such store, or no sweep with runs in it.
    """
    source = open_source(store)
    scales = {name: it.tags.get("sweep.scale", "") for name, it in sweeps_in(source).items() if has_runs(it, source)}
    found = sorted(name for name, of in scales.items() if scale in ("", of))
    if not found:
        at = f" at scale {scale}" if scale else ""
        raise NothingToShow(f"no sweep{at} has runs in {shown(store)} yet; python sweeps/NAME.py makes some")
    return found


def write_export(sweep: str, store: str, where: str) -> list[str]:
    """Write <sweep>/ into the folder of a path or URL. Returns the paths or URLs of the files.

    Runs (a row per cell, see all_runs) and history (a row per cell, metric and epoch) are Parquet, which analysis
    reads in place of a store, and CSV for other programs. The CSV of the runs leaves out the tags of the sweep, which
    sweep.json has. The same store gives the same bytes. sweep.json comes last and has the digests of the others.

    Raises:
        NothingToShow: no such store or sweep, or no run in it.
        NoFolder: the URL is wrong, or its object store is away.
    """
    source = open_source(store)
    runs, experiment = all_runs(sweep, source), sweeps_in(source)[sweep]
    history = histories_of(runs, store=source)[["run_id", "metric", "epoch", "value"]]
    columns = [name for name in map(str, runs) if not name.startswith(_OF_SWEEP) and name != "base"]
    contents = {
        RUNS: runs.to_parquet(index=False),
        "runs.csv": runs[columns].to_csv(index=False, lineterminator="\n").encode(),
        POINTS: history.to_parquet(index=False),
        "history.csv": history.to_csv(index=False, lineterminator="\n", na_rep="nan").encode(),
    }
    about = {
        "sweep": sweep,
        "experiment_id": experiment.experiment_id,
        "store": shown(store),
        "runs": len(runs),
        "points": len(history),
        "notes": runs.attrs.get("notes", []),
        "tags": experiment.tags,
        "versions": {name: version(name) for name in ("mlflow", "pandas", "pyarrow")},
        "digests": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    contents[ABOUT] = f"{json.dumps(about, indent=1, sort_keys=True)}\n".encode()
    folder = file_name(sweep)
    with opened_folder(where) as files:
        files.create_dir(folder)
        for name, content in contents.items():
            with files.open_output_stream(f"{folder}/{name}") as stream:
                stream.write(content)
    return [below(where, folder, name) for name in contents]
