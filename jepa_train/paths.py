"""Where everything that is written lies: results/ in the current directory, or where JEPA_RESULTS points."""

import os
from pathlib import Path


def results_dir() -> Path:
    """The absolute results folder; it need not exist yet."""
    return Path(os.environ.get("JEPA_RESULTS") or "results").expanduser().absolute()


def checkpoints_dir(sweep: str) -> Path:
    """Where the checkpoints of a sweep lie, one folder per cell key: each sweep trains its own."""
    return results_dir() / "checkpoints" / sweep
