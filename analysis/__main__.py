"""The command line: python -m analysis lists the tables, python -m analysis NAME prints one from the store."""

import argparse
import os
import sys
from collections.abc import Sequence

from mlflow.exceptions import MlflowException

from analysis.render import FORMATS
from analysis.runs import NothingToShow, has_runs, store_uri, sweeps_in
from analysis.tables import GENERIC, UnknownTable, find, names, table


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 when there is nothing in the store yet, or 2 for what was typed wrong."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Tables of the sweeps in the MLflow store.")
    parser.add_argument("name", nargs="?", help="a table, or any sweep of the store; without it, the tables are listed")
    parser.add_argument("--format", choices=[*FORMATS], default="md")
    parser.add_argument("--store", default=store_uri(), metavar="URI", help="default: %(default)s")
    options = parser.parse_args(words)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is down: seconds, not minutes
    try:
        text = table(options.name, options.store, options.format) if options.name else _listing(options.store)
    except (NothingToShow, MlflowException) as error:
        sys.stderr.write(f"error: {_first_line(error)}\n")
        return 1
    except UnknownTable as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{text}\n")
    return 0


def _listing(store: str) -> str:
    try:
        filled = {name for name, experiment in sweeps_in(store).items() if has_runs(experiment, store)}
        where = f"store: {store}"
    except NothingToShow as nothing:
        filled, where = set(), str(nothing)
    tables = [find(name, store) for name in names()]
    lines = [
        (item.name, "in store" if filled.issuperset(item.sweeps) else "no runs", item.description) for item in tables
    ]
    others = sorted(filled.difference(*(item.sweeps for item in tables)))
    lines += [(name, "in store", f"a sweep without a table of its own: its trials ({GENERIC})") for name in others]
    width = max(len(name) for name, _, _ in lines)
    return "\n".join([*(f"{name:<{width}}  {state:<8}  {about}" for name, state, about in lines), "", where])


def _first_line(error: Exception) -> str:
    return str(error.args[0]).partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
