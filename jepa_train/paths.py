"""Where everything that is written lies: results/ in the current directory, or where the environment points."""

import os
from pathlib import Path

from jepa_train.storage import Place, expanded, place_of


def results_dir() -> Path:
    """The absolute results folder, of JEPA_RESULTS; it need not exist yet.

    Raises:
        ConfigError: it begins with ~ and no user of this machine.
    """
    return expanded(os.environ.get("JEPA_RESULTS") or "results", named="JEPA_RESULTS")


def cache_dir() -> Path:
    """Where this machine keeps decoded images and copies of data: JEPA_CACHE, or cache/ in the results folder."""
    named = os.environ.get("JEPA_CACHE")
    return expanded(named, named="JEPA_CACHE") if named else results_dir() / "cache"


def storage_dir() -> Place:
    """Where checkpoints and exports lie: the path or URL of JEPA_STORAGE, or the results folder.

    Raises:
        ConfigError: see storage.place_of.
    """
    named = os.environ.get("JEPA_STORAGE")
    return place_of(named or results_dir(), named="JEPA_STORAGE")


def checkpoints_dir(sweep: str) -> Place:
    """Where the checkpoints of a sweep lie, one folder per cell key: each sweep trains its own."""
    return storage_dir() / "checkpoints" / sweep
