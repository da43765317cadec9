"""Command line: python -m benchmarks runs and records all benchmarks, python -m benchmarks NAME ... some of them."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import image_folder, machine, rdmreg, sigreg, sigreg_table, step, views
from benchmarks.report import Row, as_json, as_markdown
from benchmarks.timing import Setting
from jepa_train.base.errors import ConfigError, nearest

BENCHMARKS: Mapping[str, Callable[[Setting], Iterator[Row]]] = {
    "sigreg": sigreg.run,
    "rdmreg": rdmreg.run,
    "step": step.run,
    "views": views.run,
    "image_folder": image_folder.run,
    "sigreg_table": sigreg_table.run,
}
RESULTS = Path(__file__).parent / "results"


def main(words: Sequence[str] | None = None) -> int:
    """Run the named benchmarks. Returns 0, or 2 for an unknown name."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed and memory side by side with the straightforward form. A run of all is recorded in "
        "benchmarks/results/<hardware>.md and .json.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; without one, all")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, seconds: does it run? Never recorded")
    options = parser.parse_args(words)
    names = options.names or [*BENCHMARKS]
    setting = Setting(device=machine.chosen_device(), quick=options.quick)
    try:
        for name in names:
            if name not in BENCHMARKS:
                raise ConfigError(f"NAME must be a benchmark, got {name!r}{nearest(name, BENCHMARKS)}")
        rows = {name: list(_announced(name, setting)) for name in BENCHMARKS if name in names}
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    described = machine.described(setting.device)
    text = as_markdown([row for group in rows.values() for row in group], described)
    sys.stdout.write(text)
    if options.quick:
        sys.stdout.write("\nQuick: tiny shapes and 3 repeats show that it runs, not how fast.\n")
    elif rows.keys() == BENCHMARKS.keys():
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{machine.slug(setting.device)}.md"
        file.write_text(text)
        file.with_suffix(".json").write_text(as_json(rows, described))
        sys.stderr.write(f"recorded in {file}\n")
    return 0


def _announced(name: str, setting: Setting) -> Iterator[Row]:
    sys.stderr.write(f"{name} ...\n")
    for row in BENCHMARKS[name](setting):
        sys.stderr.write(f"  {'  '.join(cell for cell in row.cells() if cell)}\n")
        yield row


if __name__ == "__main__":
    sys.exit(main())
