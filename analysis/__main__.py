"""Command line: python -m analysis lists the tables, python -m analysis NAME prints one from the store."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.against_paper import NothingPublished, against_paper
from analysis.select.metrics import UnknownMetric
from analysis.select.selection import tags_of
from analysis.store.cell_list import is_edited
from analysis.store.folders import NoFolder, below, is_url
from analysis.store.runs import NothingToShow, has_runs, store_uri, sweeps_in
from analysis.store.scales import SCALE_NAMES
from analysis.store.sources import file_name, open_source, shown
from analysis.store.uri import check_name, results_folder, store_line
from analysis.sweep_list import aligned, sweep_lines
from analysis.table.provenance import write_table
from analysis.table.render import FORMATS, render
from analysis.tables import UnknownTable, describe_table, experiment_of, find_table, table_names

_USAGE = """python -m analysis [NAME] [--scale S] [--format F] [--bare] [--against-paper] [--output DIR]
       python -m analysis SWEEP [--trials] [--metrics NAME,NAME] [--scale S] [--format F] [--bare] [--output DIR]
       python -m analysis report SWEEP | optuna SWEEP | figure [NAME] [--sweep SWEEP]
       python -m analysis export [SWEEP ...] [--tensorboard]"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 1 if the store has nothing to show yet; 2 for a wrong name or option."""
    try:
        options = _options(sys.argv[1:] if words is None else words)
        text = _COMMANDS.get(options.name, _table if options.name else _listing)(options)
    except (NothingToShow, NoFolder, UnknownTable, UnknownMetric, NothingPublished, OSError) as error:
        text = str(error).partition("\n")[0]
        if isinstance(error, OSError) and error.filename:
            text = f"{error.filename} cannot be used ({error.strerror}); name another folder with --output"
        sys.stderr.write(f"error: {shown(text)}\n")
        return 1 if isinstance(error, NothingToShow | NoFolder) else 2
    if options.name in _COMMANDS:
        _name_store(options)
    sys.stdout.write(f"{text}\n")
    return 0


def _options(words: Sequence[str]) -> argparse.Namespace:
    for word in words:
        check_name(word)
    parser = argparse.ArgumentParser(description="Tables of the sweeps in the MLflow store.", usage=_USAGE)
    add = parser.add_argument
    add("name", nargs="?", default="", help="a table, or any sweep of the store; without it, the tables are listed")
    add("of", nargs="*", default=[], help="the sweep or figure; without it, export writes every sweep")
    add("--scale", choices=SCALE_NAMES, default="", help="by default the only one in the store")
    add("--sweep", default="", metavar="SWEEP", help="the sweep of a figure, if not its own")
    add("--format", choices=FORMATS, default="md")
    add("--bare", action="store_true", help="LaTeX without its float: the tabular alone, with comments")
    add("--against-paper", action="store_true", help="the published numbers next to ours")
    add("--trials", action="store_true", help="the individual runs of a sweep by rank, in place of its table")
    metrics = "metrics for the default table of a sweep, or for --trials: test/knn_top1,train/loss"
    add("--metrics", type=lambda text: text.replace(" ", "").split(","), default=[], metavar="NAME,NAME", help=metrics)
    add("--tensorboard", action="store_true", help="export the curves as TensorBoard event files, a folder per run")
    files = "output folder: a table in all formats, with its provenance; for an export also a URL"
    add("--output", metavar="DIR", help=files)
    default = f"default: {shown(store_uri()).replace('%', '%%')}"
    store = f"an MLflow store, or a folder of exports by path or URL; {default}"
    add("--store", default=store_uri(), metavar="URI", help=store)
    options = parser.parse_args(words)
    if (options.name != "export" or options.tensorboard) and is_url(options.output or ""):
        output = shown(options.output)
        parser.error(
            f"--output must be a folder of this machine, got {output!r}; only an export as tables writes to a URL"
        )
    if options.tensorboard and options.name != "export":
        parser.error("--tensorboard is for export: python -m analysis export SWEEP --tensorboard")
    if options.bare and options.format != "latex" and not options.output:
        parser.error("--bare is for LaTeX; add --format latex")
    if options.name not in _COMMANDS and options.of:
        parser.error(f"one table at a time, got {options.of[0]!r} too")
    if (options.trials or options.metrics) and (options.name in ("", *_COMMANDS) or options.against_paper):
        parser.error("--trials and --metrics are of the table of one sweep: python -m analysis SWEEP --trials")
    fewest = {"report": 1, "optuna": 1, "figure": 0}.get(options.name)
    if fewest is not None and not fewest <= len(options.of) <= 1:
        parser.error(f"{options.name} needs one name, got {' '.join(options.of) or 'none'}")
    return options


def _table(options: argparse.Namespace) -> str:
    chosen = {"trials": options.trials, "metrics": options.metrics}
    found = find_table(options.name, options.store, options.scale, **chosen)
    runs = found.load(options.store)
    for tags in (tags_of(own) for _, own in runs.groupby("sweep", sort=False)):
        if is_edited(tags):
            file = tags["sweep.file"]
            sys.stderr.write(f"{file}: edited since the launch of which this table shows the cells; see its --status\n")
    built = found.finish(runs)
    published, bare = options.against_paper, options.bare
    text = render(built, options.format, bare=bare)
    if published:
        text = against_paper(found.name, built, options.format, bare=bare)
    if found.sweeps:
        _name_store(options)
    if options.output is None:
        return text
    folder = Path(options.output)
    files = write_table(built, folder, store=options.store, bare=bare)
    for form in FORMATS if published else ():
        files.append(folder / f"{file_name(found.label)}-against-paper.{'tex' if form == 'latex' else form}")
        files[-1].write_text(f"{against_paper(found.name, built, form, bare=bare)}\n", encoding="utf-8")
    return "\n".join([text, "", *map(str, files)])


def _name_store(options: argparse.Namespace) -> None:
    """Name the store that was read; the listing ends in it."""
    sys.stderr.write(f"{store_line(options.store, shown(options.store))}\n")


def _report(options: argparse.Namespace) -> str:
    from analysis.html_report import write_report  # matplotlib takes a second to import

    return str(write_report(options.of[0], options.store, _folder(options), scale=options.scale))


def _export(options: argparse.Namespace) -> str:
    from analysis.event_files import write_events
    from analysis.store.export import sweeps_to_export, write_export

    sweeps = [experiment_of(name, options.store, options.scale) for name in options.of]
    sweeps = sweeps or sweeps_to_export(options.scale, options.store)
    if options.tensorboard:
        folder = Path(options.output or results_folder() / "tensorboard")
        folders = [str(write_events(sweep, options.store, folder)) for sweep in sweeps]
        top = str(folder) if len(folders) > 1 else folders[0]
        return "\n".join([*folders, f"open it with: tensorboard --logdir {shlex.quote(top)}"])
    where = options.output or below(os.environ.get("JEPA_STORAGE") or str(results_folder()), "exports")
    return "\n".join(file for sweep in sweeps for file in write_export(sweep, options.store, where))


def _optuna(options: argparse.Namespace) -> str:
    from analysis.optuna_study import write_study

    sweep = experiment_of(options.of[0], options.store, options.scale)
    file = write_study(sweep, options.store, _folder(options))
    return f"{file}\nopen it with: optuna-dashboard {shlex.quote(str(file))}"


def _figure(options: argparse.Namespace) -> str:
    from analysis import figures

    if not options.of:
        drawings = map(figures.find, figures.names())
        return "\n".join(aligned([(one.name, one.sweep or "--sweep SWEEP", one.description) for one in drawings]))
    at = {"scale": options.scale, "sweep": options.sweep}
    return "\n".join(map(str, figures.write_figure(options.of[0], options.store, _folder(options), **at)))


def _folder(options: argparse.Namespace) -> Path:
    return Path(options.output or results_folder() / options.name)


def _listing(options: argparse.Namespace) -> str:
    """Every table with its scales in the store, then the sweeps of the store."""
    try:
        source = open_source(options.store)
        filled = {name: item.tags for name, item in sweeps_in(source).items() if has_runs(item, source)}
        lines = [*sweep_lines(source), "", store_line(options.store, shown(options.store))]
    except NothingToShow as nothing:
        filled, lines = {}, [str(nothing)]
    rows = []
    for name in table_names():
        about, sweeps = describe_table(name)
        scales = {sweep: tags["sweep.scale"] for sweep, tags in filled.items() if tags.get("sweep.name") in sweeps}
        state = ", ".join(sorted({*scales.values()})) or "no runs"
        if filled.keys() >= {*sweeps}:
            state = "in store" if sweeps else "recorded"
        rows.append((name, state, about))
    return "\n".join([*aligned(rows), "", *lines])


_COMMANDS: dict[str, Callable[[argparse.Namespace], str]] = {
    "report": _report,
    "export": _export,
    "optuna": _optuna,
    "figure": _figure,
}


if __name__ == "__main__":
    sys.exit(main())
