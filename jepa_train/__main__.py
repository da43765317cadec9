"""One run from the command line: python -m jepa_train method=lejepa data.name=digits epochs=5 method.lamb=0.02"""

import argparse
import functools
import logging
import sys

from rich.console import Console
from rich.table import Table

from jepa_train.base.errors import ConfigError, nearest
from jepa_train.base.security import hidden
from jepa_train.config import TrainConfig
from jepa_train.config.flat import parse, unflatten
from jepa_train.config.names import DATASET_NAMES
from jepa_train.config.presets import PRESETS
from jepa_train.data.facts import facts_of
from jepa_train.data.splits import identify
from jepa_train.evaluation.glossary import GLOSSARY
from jepa_train.storage.storage import StorageError, storage_path
from jepa_train.train.export import export
from jepa_train.train.loop import evaluate_checkpoint, train
from jepa_train.train.preflight import preflight

_DESCRIPTION = """Train and evaluate one config, evaluate a finished run with other protocols, or export its encoder.

The config is a preset (that of data.name, or --preset) with the assigned fields changed, for example:
  python -m jepa_train method=lejepa data.name=digits epochs=5 method.lamb=0.02
  python -m jepa_train --preset rectified_lpjepa_cifar100_resnet18 data.path=DIR --checkpoints results/run1
  python -m jepa_train --evaluate results/run1/final.pt probe.protocols=kshot
  python -m jepa_train export results/run1 exports/run1
"""


def main(words: list[str]) -> int:
    """Run the command line. Exit code: 0 finished, 1 diverged or collapsed, 2 wrong input."""
    try:
        return _export(words[1:]) if words[:1] == ["export"] else _run(words)
    except (ConfigError, StorageError) as error:
        sys.stderr.write(f"error: {hidden(str(error))}\n")
        return 2


def _run(words: list[str]) -> int:
    """Train, or evaluate a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m jepa_train", description=_DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="a field of the config")
    parser.add_argument("--preset", metavar="NAME", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--checkpoints", metavar="DIR", help="of this run, a path or URL; resumes from the last one")
    parser.add_argument(
        "--evaluate", metavar="FILE", help="final.pt of a finished run, by path or URL; nothing is trained"
    )
    options = parser.parse_args(words)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("jepa_train").setLevel(logging.INFO)  # decoding and resuming are logged
    if options.evaluate is not None and (options.preset or options.checkpoints):
        parser.error("--evaluate takes the config from its file; leave out --preset and --checkpoints")
    if options.evaluate is not None:
        metrics = evaluate_checkpoint(storage_path(options.evaluate, named="--evaluate"), options.assignments)
        Console().print(_summary("evaluated", metrics))
        return 0
    folder = storage_path(options.checkpoints, named="--checkpoints") if options.checkpoints else None
    config = preflight(config_of(options.assignments, start=options.preset), read=True)
    facts = facts_of(*identify(config.data))
    if facts is not None:
        sys.stderr.write(hidden(f"data {facts}\n"))
    outcome = train(config, report=functools.partial(_progress, config.epochs), checkpoints=folder)
    Console().print(_summary(outcome.status, outcome.metrics))
    if outcome.reason:
        sys.stderr.write(f"{outcome.status}: {outcome.reason}\n")
    return 0 if outcome.status == "finished" else 1


def _export(words: list[str]) -> int:
    """Run the command export."""
    parser = argparse.ArgumentParser(prog="python -m jepa_train export", description=export.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", help="final.pt of a finished run, its folder or its URL")
    parser.add_argument("out", metavar="OUT", help="a new folder")
    parser.add_argument("--projector", action="store_true", help="write the projector too")
    options = parser.parse_args(words)
    place = storage_path(options.checkpoint, named="CHECKPOINT")
    files = export(place, options.out, projector=options.projector)
    sys.stdout.write("".join(f"{file}\n" for file in files))
    return 0


def config_of(words: list[str], *, start: str | None = None) -> TrainConfig:
    """Config of command-line assignments to a preset, by default that of data.name."""
    data = next((word.partition("=")[2] for word in words if word.startswith("data.name=")), "digits")
    if start is None and data not in DATASET_NAMES:
        raise ConfigError(f"data.name must be a known dataset, got {data!r}{nearest(data, DATASET_NAMES)}")
    base = PRESETS[start or data]
    return unflatten(parse(words, base=base), base=base)


def _progress(epochs: int, metrics: dict[str, float]) -> bool:
    """Print one line per epoch; never stops the run."""
    loss = f"loss {metrics['train/loss']:.3f}  " if "train/loss" in metrics else ""
    shown = {"val/probe_top1": "val probe top-1", "val/effective_rank": "val effective rank"}  # by preference
    values = [f"{label} {metrics[name]:.3f}" for name, label in shown.items() if name in metrics]
    sys.stderr.write(f"epoch {metrics['epoch']:.0f}/{epochs}  {loss}{values[0] if values else ''}\n")
    return False


def _summary(status: str, metrics: dict[str, float]) -> Table:
    """Table of the last epoch's metrics: a row per metric, a column per split."""
    table = Table(title=f"{status} at epoch {metrics['epoch']:.0f}", title_justify="left")
    splits = ("train", "val", "test", "target")
    for column in ("metric", *splits):
        table.add_column(column, justify="left" if column == "metric" else "right", overflow="fold")
    own = [name.removeprefix("train/") for name in metrics if name.startswith("train/")]  # terms of any method's loss
    for name in dict.fromkeys([*GLOSSARY, *own]):
        values = [metrics.get(f"{split}/{name}") for split in splits]
        if any(value is not None for value in values):
            table.add_row(name, *("" if value is None else f"{value:.4g}" for value in values))
    for name, value in metrics.items():
        if name.startswith("transfer/"):
            table.add_row(name, "", "", f"{value:.4g}", "")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
