"""Address of the MLflow store."""

import os
from pathlib import Path


def store_uri(results: str = "results") -> str:
    """MLFLOW_TRACKING_URI, or the sqlite file in JEPA_RESULTS, or in the given results folder."""
    folder = Path(os.path.expanduser(os.environ.get("JEPA_RESULTS") or results)).absolute()
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"


def sqlite_file(uri: str) -> Path | None:
    """The file of an sqlite store, None for any other."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None
