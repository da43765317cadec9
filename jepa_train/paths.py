"""Where everything that is written lies: results/ in the current directory, or where JEPA_RESULTS points."""

import os
from pathlib import Path

from jepa_train.checks import ConfigError


def results_dir() -> Path:
    """The absolute results folder; it need not exist yet.

    Raises:
        ConfigError: it begins with ~ and no user of this machine.
    """
    named = os.environ.get("JEPA_RESULTS") or "results"
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"JEPA_RESULTS must be a folder, got {named!r}; nobody's home is called that") from None


def checkpoints_dir(sweep: str) -> Path:
    """Where the checkpoints of a sweep lie, one folder per cell key: each sweep trains its own."""
    return results_dir() / "checkpoints" / sweep
