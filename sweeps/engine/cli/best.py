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
    sys.stderr.write("".join(f"{note}\n" for note in runs.attrs["notes"]))
    found, score, judged, rivals = winner(runs)
    if found.empty:
        if note := infeasible_note(runs):
            raise ConfigError(f"best: {name} has {note}; add trials, or relax the sweep's constraints")
        raise ConfigError(f"best needs a finished run, and {name} has none yet; launch it again")
    chosen, (goal, *further) = found.iloc[0], goals_of(runs)
    setting = str(chosen["run_name"]).removesuffix(f"seed={chosen['seed']}").strip() or "base"
    several = f", the first of its {1 + len(further)} goals" if further else ""
    checkpoint = checkpoints_dir(name) / str(chosen["cell_key"])
    scored = found.assign(**{goal.name: goal.scores(found)})
    over_all = [*([] if len(judged) == len(found) else [goal.name]), *(metric for metric in _TOP1 if metric in found)]
    numbers = ", ".join(f"{metric} {scored[metric].mean():.4g}" for metric in over_all)
    means = f"  {numbers}{_over(found)}\n" if numbers else ""
    sys.stdout.write(
        f"{name}: {setting}, best of {rivals} settings by {goal.name}{several}: {score:.4g}{_over(judged)}\n"
        f"{means}"
        f"  checkpoint of seed {chosen['seed']}: {checkpoint}\n"
    )
    if options.export:
        by = f"{goal.name} {score:.4g}, best of {rivals} settings"
        _export({"sweep": name, "chosen by": by}, chosen, checkpoint, options.export)
        sys.stdout.write(f"exported seed {chosen['seed']}; {options.export}/README.md has the lines that load it\n")
    return 0


def _over(runs: pd.DataFrame) -> str:
    """ " (seed 0)", " (mean of seeds 0, 1, 2)"."""
    seeds = ", ".join(map(str, runs["seed"]))
    return f" (mean of seeds {seeds})" if len(runs) > 1 else f" (seed {seeds})"


def _export(facts: dict[str, str], run: pd.Series, checkpoint: StoragePath, out: str) -> None:
    from jepa_train.train.export import export  # torch and timm

    facts |= {label: str(run[tag]) for tag, label in _ORIGIN.items() if tag in run}
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
