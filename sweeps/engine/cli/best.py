"""Commands that read the store: best, the winner of a sweep as its table chooses, and its encoder; list, all sweeps."""

import sys
from collections.abc import Sequence

import pandas as pd

from analysis.select.compared import winner
from analysis.select.objectives import goals_of
from analysis.select.selection import infeasible_note
from analysis.store.runs import all_runs
from analysis.store.scales import SCALE_NAMES
from analysis.store.sources import open_source, shown
from analysis.store.uri import store_line, store_uri
from analysis.sweep_list import sweep_lines
from analysis.tables import UnknownTable, experiment_of
from jepa_train.base.errors import ConfigError
from jepa_train.storage.storage import StorageError, StoragePath, checkpoints_dir
from sweeps.engine.parser import LineParser

_TOP1 = ("test/probe_top1", "test/linear_top1")
_ORIGIN = {
    "run_name": "run",
    "run_id": "MLflow run",
    "host": "host",
    "commit": "commit",
    "code_version": "code version",
}


def list_sweeps(words: Sequence[str]) -> int:
    """Print the sweeps of a store, and name it.

    Raises:
        ConfigError: an unknown option; NothingToShow: the store cannot be read.
    """
    parser = LineParser("The sweeps of a store, the latest first.", "list [--store URI]")
    about = "an MLflow store or a folder of exports; default: that of results/"
    parser.add_argument("--store", metavar="URI", help=about, default=store_uri())
    store = parser.parse_args(list(words)).store
    sys.stdout.write("\n".join(sweep_lines(open_source(store))) + "\n")
    sys.stderr.write(f"{store_line(store, shown(store))}\n")
    return 0


def best(words: Sequence[str]) -> int:
    """Print the winner of a sweep, and export the encoder of its first seed.

    Raises:
        ConfigError: no such sweep or option; no finished run; its checkpoint is not here; as jepa_train.train.export.
        NothingToShow: the store cannot be read, or the sweep has no run in it.
    """
    about = "The best setting of a sweep by its first goal on val, mean over seeds, as in its table."
    parser = LineParser(about, "best SWEEP [--scale S] [--export OUT]")
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep of the store")
    parser.add_argument("--scale", choices=SCALE_NAMES, default="", help="by default the only one in the store")
    parser.add_argument("--export", metavar="OUT", help="write the encoder to this new folder")
    options = parser.parse_args(list(words))
    try:
        name = experiment_of(options.sweep, store_uri(), options.scale)
    except UnknownTable as error:
        raise ConfigError(str(error)) from None
    runs = all_runs(name)
    found, count = winner(runs)
    if found.empty:
        if note := infeasible_note(runs):
            raise ConfigError(f"best: {name} has {note}; add trials, or relax the sweep's constraints")
        raise ConfigError(f"best needs a finished run, and {name} has none yet; launch it again")
    chosen, seeds = found.iloc[0], ", ".join(map(str, found["seed"]))
    goals = goals_of(runs)
    scored = found.assign(**{goals[0].name: goals[0].scores(found)})
    numbers = [f"{metric} {scored[metric].mean():.4g}" for metric in (goals[0].name, *_TOP1) if metric in scored]
    setting = str(chosen["run_name"]).removesuffix(f"seed={chosen['seed']}").strip() or "base"
    first = f", the first of its {len(goals)} goals" if len(goals) > 1 else ""
    checkpoint = checkpoints_dir(name) / str(chosen["cell_key"])
    sys.stdout.write(
        f"{name}: {setting}, best of {count} runs by {goals[0].name}{first}\n"
        f"  {', '.join(numbers)} (seed {seeds}{', means' if len(found) > 1 else ''})\n"
        f"  checkpoint of seed {chosen['seed']}: {checkpoint}\n"
    )
    if options.export:
        _export(name, chosen, checkpoint, options.export)
        sys.stdout.write(f"exported seed {chosen['seed']}; {options.export}/README.md has the lines that load it\n")
    return 0


def _export(name: str, run: pd.Series, checkpoint: StoragePath, out: str) -> None:
    from jepa_train.train.export import export  # torch and timm

    facts = {"sweep": name, **{label: str(run[tag]) for tag, label in _ORIGIN.items() if tag in run}}
    try:
        if "final.pt" not in checkpoint.names():
            raise ConfigError(
                f"final.pt of the winner must be in {checkpoint}, where there is none; it was trained by a launch on "
                f"{run.get('host', 'another machine')}: use that machine, or the JEPA_STORAGE or JEPA_RESULTS of the "
                "launch"
            )
        export(checkpoint, out, facts=facts)
    except StorageError as error:
        raise ConfigError(str(error)) from None
