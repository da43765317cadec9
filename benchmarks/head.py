"""What a head carries: memory and processes per trial, reports and store writes per second, bytes of checkpoints.

    python -m benchmarks.head [--quick] [--store URI ...]

The constants behind docs/scale.md. Memory is what a process has for itself (USS), which other work on the machine does
not change; times of Tune, the mailbox and the ledger are CPU time, for the same reason.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import machine
from benchmarks.head_checkpoints import checkpoint_rows
from benchmarks.head_lanes import Measured, lane_rows, mailbox_rows
from benchmarks.head_store import store_rows
from benchmarks.report import as_markdown
from sweeps.engine.cluster.session import ray_session

RESULTS = Path(__file__).parent / "results"
# resnet18, resnet50, vit_small and vit_large, all with AdamW, which keeps two moments
PRESETS = ("cifar100", "lejepa_imagenet100_resnet50", "lejepa_imagenette_vit_s8", "lejepa_imagenet1k_vit_l14")


def rows(stores: Sequence[str], *, quick: bool) -> Iterator[Measured]:
    """All of them; the store is an sqlite file, MLflow's server over one, and what is named."""
    lanes = 1 if quick else 4
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JEPA_RESULTS"] = folder
        os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "1"  # as on a cluster: one more process per trial
        with ray_session(lanes):
            yield from lane_rows(lanes, Path(folder))
            yield from mailbox_rows((2,) if quick else (8, 64, 256), reports=200 if quick else 4000)
    yield from store_rows(stores, cells=2 if quick else 20)
    yield from checkpoint_rows(PRESETS[:1] if quick else PRESETS, times=2 if quick else 5)


def main(words: Sequence[str] | None = None) -> int:
    """Measures, prints the table, and records it under benchmarks/results/ unless quick."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.head", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="few lanes, few runs: does it work? Never recorded")
    parser.add_argument("--store", action="append", default=[], metavar="URI", help="a database to serve as well")
    options = parser.parse_args(words)
    measured = []
    for row in rows(options.store, quick=options.quick):
        sys.stderr.write(f"  {'  '.join(row.cells())}\n")
        measured.append(row)
    device = machine.chosen_device()
    versions = {name: version(name) for name in ("mlflow", "ray", "psycopg2-binary")}
    text = as_markdown(measured, versions | machine.described(device))
    sys.stdout.write(text)
    if not options.quick:
        file = RESULTS / f"head-{machine.slug(device)}.md"
        file.write_text(text)
        sys.stderr.write(f"recorded in {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
