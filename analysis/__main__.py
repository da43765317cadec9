"""The command line: python -m analysis lists the tables, python -m analysis NAME prints one from the store."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.against_paper import NothingPublished, against_paper
from analysis.store.folders import NoFolder, below, is_url
from analysis.store.runs import NothingToShow, has_runs, store_uri, sweeps_in
from analysis.store.scales import SCALE_NAMES
from analysis.store.sources import file_name, shown
from analysis.table.build import UI
from analysis.table.provenance import write_table
from analysis.table.render import FORMATS
from analysis.tables import GENERIC, UnknownTable, describe_table, find_table, table_names

_USAGE = """python -m analysis [NAME] [--scale S] [--format F] [--against-paper] [--output DIR]
       python -m analysis report SWEEP | export [SWEEP ...] | figure NAME [--sweep SWEEP] [--scale S] [--output DIR]"""


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 when there is nothing in the store yet, or 2 for what was typed wrong or cannot be shown so."""
    options = _options(sys.argv[1:] if words is None else words)
    try:
        text = _COMMANDS.get(options.name, _table if options.name else _listing)(options)
    except (NothingToShow, NoFolder) as error:
        sys.stderr.write(f"error: {_first_line(error)}\n")
        return 1
    except (UnknownTable, NothingPublished) as error:
        sys.stderr.write(f"error: {_first_line(error)}\n")
        return 2
    sys.stdout.write(f"{text}\n")
    return 0


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tables of the sweeps in the MLflow store.", usage=_USAGE)
    say = parser.add_argument
    say("name", nargs="?", default="", help="a table, or any sweep of the store; without it, the tables are listed")
    say("of", nargs="*", default=[], help="what to report, draw or export; without it, export writes every sweep")
    say("--scale", choices=SCALE_NAMES, default="", help="by default the only one in the store")
    say("--sweep", default="", metavar="SWEEP", help="what a figure draws, if not its own sweep")
    say("--format", choices=FORMATS, default="md")
    say("--against-paper", action="store_true", help="the published numbers next to ours")
    files = "where to write: a table in all formats, with its provenance; an export by URL too"
    say("--output", metavar="DIR", help=files)
    default = f"default: {shown(store_uri()).replace('%', '%%')}"
    store = f"an MLflow store, or a folder of exports by path or URL; {default}"
    say("--store", default=store_uri(), metavar="URI", help=store)
    say("--ui", default=UI, metavar="URL", help="the MLflow UI that HTML links to; default: %(default)s")
    options = parser.parse_args(words)
    if options.name != "export" and is_url(options.output or ""):
        parser.error(f"--output must be a folder of this machine, got {options.output!r}; only export writes to a URL")
    if options.name not in _COMMANDS and options.of:
        parser.error(f"one table at a time, got {options.of[0]!r} too")
    if options.name in ("report", "figure") and len(options.of) != 1:
        parser.error(f"{options.name} needs one name, got {' '.join(options.of) or 'none'}")
    return options


def _table(options: argparse.Namespace) -> str:
    found = find_table(options.name, options.store, options.scale)
    built = found.finish(found.load(options.store))
    files: list[Path] = []
    folder = Path(options.output or "")
    if options.output is not None:
        files = write_table(built, found.label, folder, store=options.store, ui=options.ui)
    if options.against_paper:
        text = against_paper(found.name, built, options.format)
        if options.output is not None:
            files += _written(found.label, folder, {form: against_paper(found.name, built, form) for form in FORMATS})
    else:
        text = built.render(options.format, ui=options.ui)
    return "\n".join([text, *(["", *map(str, files)] if files else [])])


def _written(label: str, folder: Path, texts: dict[str, str]) -> list[Path]:
    files = []
    for form, text in texts.items():
        files.append(folder / f"{file_name(label)}-against-paper.{'tex' if form == 'latex' else form}")
        files[-1].write_text(f"{text}\n", encoding="utf-8")
    return files


def _report(options: argparse.Namespace) -> str:
    from analysis.html_report import write_report  # matplotlib takes a second to import

    return str(write_report(_sweep(options), options.store, _folder(options)))


def _export(options: argparse.Namespace) -> str:
    from analysis.store.export import export_to, sweeps_to_export

    storage = os.environ.get("JEPA_STORAGE") or os.environ.get("JEPA_RESULTS") or "results"
    where = options.output or below(storage, "exports")
    sweeps = sweeps_to_export(options.of, options.scale, options.store)
    return "\n".join(file for sweep in sweeps for file in export_to(where, sweep, options.store))


def _figure(options: argparse.Namespace) -> str:
    from analysis.figures import write_figure

    sweep = "_".join(filter(None, [options.sweep, options.scale])) if options.sweep else ""
    files = write_figure(options.of[0], options.store, _folder(options), scale=options.scale, sweep=sweep)
    return "\n".join(map(str, files))


def _sweep(options: argparse.Namespace) -> str:
    return "_".join(filter(None, [options.of[0], options.scale]))


def _folder(options: argparse.Namespace) -> Path:
    return Path(options.output or Path(os.environ.get("JEPA_RESULTS") or "results") / options.name)


def _listing(options: argparse.Namespace) -> str:
    store = options.store
    try:
        filled = {name: item for name, item in sweeps_in(store).items() if has_runs(item, store)}
        where = f"store: {shown(store)}"
    except NothingToShow as nothing:
        filled, where = {}, str(nothing)
    lines = [_line(name, {sweep: item.tags for sweep, item in filled.items()}) for name in table_names()]
    tabled = {sweep for _, _, _, sweeps in lines for sweep in sweeps}
    others = sorted({*filled} - tabled)
    about = f"a sweep without a table of its own: its trials ({GENERIC})"
    rows = [line[:3] for line in lines] + [(name, "in store", about) for name in others]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    text = [f"{name:<{widths[0]}}  {state:<{widths[1]}}  {about}" for name, state, about in rows]
    return "\n".join([*text, "", where])


def _line(name: str, filled: dict[str, dict[str, str]]) -> tuple[str, str, str, set[str]]:
    """A table: its name, at what scales the store has its sweeps, what it is, and the experiments that it shows."""
    about, sweeps = describe_table(name)
    if filled.keys() >= {*sweeps}:
        return name, "in store" if sweeps else "recorded", about, {*sweeps}
    own = {sweep: tags["sweep.scale"] for sweep, tags in filled.items() if tags.get("sweep.name") in sweeps}
    return name, ", ".join(sorted({*own.values()})) or "no runs", about, {*own}


_COMMANDS: dict[str, Callable[[argparse.Namespace], str]] = {"report": _report, "export": _export, "figure": _figure}


def _first_line(error: Exception) -> str:
    return str(error.args[0]).partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
