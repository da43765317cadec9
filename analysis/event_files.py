"""Curves of a sweep's runs as TensorBoard event files: python -m analysis export SWEEP --tensorboard"""

from pathlib import Path

from analysis.runs import load_runs
from analysis.select.objectives import goals_of
from analysis.select.selection import axes, records_of
from analysis.store.sources import file_name, open_source

_EVENTS = "events.out.tfevents.*"


def write_events(sweep: str, store: str, where: Path) -> Path:
    """Write where/<sweep>/<label> <cell>/ for each run that the sweep asks for. Returns where/<sweep>.

    A folder has every metric over epochs, with its wall time (from an export that of the run's start), and the run's
    axes and seed for the tab HPARAMS. Event files of an earlier export of the sweep are removed.

    Raises:
        NothingToShow: no such store or sweep, or no run in it.
    """
    from tensorboardX import SummaryWriter  # imports torch where it is installed: seconds
    from tensorboardX.summary import hparams

    source, folder = open_source(store), where / file_name(sweep)
    runs = load_runs(sweep, source)
    for old in folder.rglob(_EVENTS):
        old.unlink()
    points = dict([*source.points(sweep, runs["run_id"].tolist(), []).groupby("run_id")])
    goals = dict.fromkeys([goal.metric for goal in goals_of(runs)], 0.0)
    for run in records_of(runs):
        settings = {name: run[name] for name in [*axes(runs), "seed"] if run.get(name) == run.get(name)}
        label = str(run["run_name"]).replace("/", "_").encode()[:200].decode(errors="ignore")  # a name has 255 bytes
        with SummaryWriter(str(folder / f"{label} {run['cell_key']}")) as writer:
            for summary in hparams(settings, goals):
                writer.file_writer.add_summary(summary)
            if run["run_id"] in points:
                own = points[run["run_id"]]
                times = own["at"] / 1000 if "at" in own else [run["start_time"].timestamp()] * len(own)
                for name, epoch, value, at in zip(own["metric"], own["epoch"], own["value"], times, strict=True):
                    writer.add_scalar(name, value, epoch, at)
    return folder
