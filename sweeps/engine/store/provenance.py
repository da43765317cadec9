"""Which code, on which machine, by whom: the tags that say so in every run."""

import getpass
import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

# What a run's numbers depend on: neither a filled-in cluster.yaml nor edited docs, tests or tables make other numbers.
_COUNTS = ("jepa_train", "sweeps", "search_spaces", "pyproject.toml", "requirements.lock")


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        return str(os.getuid())


@cache
def code_tags(source: Path) -> dict[str, str]:
    """Which code made a run: source file, git commit and dirtiness, versions."""
    root = Path(__file__).resolve().parents[3]
    packages = ("torch", "torchvision", "timm", "ray", "optuna", "mlflow")
    return {
        "mlflow.source.name": str(source),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": _git(root, "rev-parse", "HEAD") or "unknown",
        "git_dirty": str(dirty(root)).lower(),
        "command": " ".join(sys.argv),
        "host": platform.node(),
        "version.python": platform.python_version(),
        **{f"version.{name}": importlib.metadata.version(name) for name in packages},
    }


def dirty(root: Path) -> bool:
    """Whether the code that numbers depend on differs from the commit."""
    return bool(_git(root, "status", "--porcelain", "--", *_COUNTS))


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
