"""Provenance tags of every run: code, versions, machine, user."""

import getpass
import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

# Code that numbers depend on; a filled-in cluster.yaml, docs, tests and tables do not change them.
_COUNTS = ("jepa_train", "sweeps", "search_spaces", "pyproject.toml", "requirements.lock")


def user() -> str:
    """Name of the user, or the id of one without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


@cache
def code_tags(source: Path) -> dict[str, str]:
    """Tags of the code that makes a run: source file, git commit and dirtiness, versions."""
    root = Path(__file__).resolve().parents[3]
    packages = ("jepa-sweeps", "torch", "torchvision", "timm", "ray", "optuna", "mlflow")
    return {
        "mlflow.source.name": str(source),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": _git(root, "rev-parse", "HEAD") or "unknown",
        "git_dirty": str(dirty(root)).lower(),
        "command": " ".join(sys.argv),
        "host": platform.node(),
        "version.python": platform.python_version(),
        **{f"version.{name}": version_of(name) for name in packages},
    }


def dirty(root: Path) -> bool:
    """Return True if the code that numbers depend on differs from the commit."""
    return bool(_git(root, "status", "--porcelain", "--", *_COUNTS))


def version_of(package: str) -> str:
    """Installed version of a package, or "not installed", as for this project in a working directory from Ray."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
