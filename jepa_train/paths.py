"""Where everything that is written lies: results/ in the current directory, or where JEPA_RESULTS points."""

import os
from pathlib import Path

from jepa_train.checks import ConfigError
from jepa_train.storage import Place, place_of


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


def storage_dir() -> Place:
    """Where checkpoints and exports lie: the path or URL of JEPA_STORAGE, or the results folder.

    Raises:
        ConfigError: see storage.place_of.
    """
    return place_of(os.environ.get("JEPA_STORAGE") or results_dir(), named="JEPA_STORAGE")


def checkpoints_dir(sweep: str) -> Path:
    """Where the checkpoints of a sweep lie, one folder per cell key: each sweep trains its own."""
    return results_dir() / "checkpoints" / sweep
