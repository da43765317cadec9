"""One run from the command line: python -m jepa_train method=lejepa data.name=digits epochs=5 method.lamb=0.02"""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jepa_train.checks import ConfigError, nearest
from jepa_train.config import TrainConfig
from jepa_train.flat import parse, unflatten
from jepa_train.metrics import GLOSSARY
from jepa_train.preflight import preflight
from jepa_train.presets import PRESETS
from jepa_train.train import Outcome, train

USAGE = f"""usage: python -m jepa_train [key=value ...]

Starts from the preset of data.name ({", ".join(PRESETS)}; default digits) and changes what you name, for example:
  python -m jepa_train method=lejepa data.name=digits epochs=5 method.lamb=0.02
"""


def main(words: list[str]) -> int:
    """Exit code: 0 finished, 1 diverged or collapsed, 2 bad input."""
    if {"-h", "--help"} & set(words):
        sys.stdout.write(USAGE)
        return 0
    try:
        config = preflight(config_of(words))
        outcome = _train_with_progress(config)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    Console().print(_summary(outcome))
    if outcome.reason:
        sys.stderr.write(f"{outcome.status}: {outcome.reason}\n")
    return 0 if outcome.status == "finished" else 1


def config_of(words: list[str]) -> TrainConfig:
    """The config of command-line words: the preset of data.name, changed by the words."""
    name = next((word.partition("=")[2] for word in words if word.startswith("data.name=")), "digits")
    if name not in PRESETS:
        raise ConfigError(f"data.name must be a known dataset, got {name!r}{nearest(name, PRESETS)}")
    return unflatten(parse(words, base=PRESETS[name]), base=PRESETS[name])


def _train_with_progress(config: TrainConfig) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("epochs", total=config.epochs)

        def report(metrics: dict[str, float]) -> bool:
            loss = f"loss {metrics['train/loss']:.3f}  " if "train/loss" in metrics else ""
            top1 = metrics.get("val/probe_top1", float("nan"))
            progress.update(bar, completed=int(metrics["epoch"]), description=f"{loss}val probe top-1 {top1:.3f}")
            return False

        return train(config, report=report)


def _summary(outcome: Outcome) -> Table:
    """One row per metric, one column per split; the last epoch's."""
    table = Table(title=f"{outcome.status} at epoch {outcome.metrics['epoch']:.0f}", title_justify="left")
    splits = ("train", "val", "test", "target")
    for column in ("metric", *splits):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name in GLOSSARY:
        values = [outcome.metrics.get(f"{split}/{name}") for split in splits]
        if any(value is not None for value in values):
            table.add_row(name, *("" if value is None else f"{value:.4g}" for value in values))
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
