"""Provenance tags of every run: git, versions, machine, user. For information; code_version.py says what counts."""

import getpass
import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jepa_train.base.checkout import git


@dataclass(frozen=True)
class GitState:
    """Git's answers about some files; "unknown" where it has none: no git, no repository, or not the files' own.

    Args:
        dirty: "true" if one of the files differs from the commit, "false" if none does.
        patch: the difference.
    """

    commit: str = "unknown"
    branch: str = "unknown"
    dirty: str = "unknown"
    patch: str = ""

    @property
    def patch_file(self) -> dict[str, str]:
        """The difference as a file, by a name of its own; {} without one."""
        if not self.patch:
            return {}
        return {f"uncommitted-{hashlib.sha256(self.patch.encode()).hexdigest()[:8]}.patch": self.patch}


def user() -> str:
    """Name of the user, or the id of one without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


@cache
def code_tags(source: Path, git: GitState) -> dict[str, str]:
    """Tags of the code that makes a run: source file, git's answers, versions."""
    packages = ("jepa-sweeps", "torch", "torchvision", "timm", "ray", "optuna", "mlflow")
    return {
        "mlflow.source.name": str(source),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.commit,
        "mlflow.source.git.branch": git.branch,
        "git_dirty": git.dirty,
        **({"git_patch": next(iter(git.patch_file))} if git.patch else {}),
        "command": " ".join(sys.argv),
        "host": platform.node(),
        "version.python": platform.python_version(),
        **{f"version.{name}": version_of(name) for name in packages},
    }


@cache
def git_state(root: Path, files: Sequence[Path]) -> GitState:
    """Git's answers about files of a folder, and about others, of which it knows nothing."""
    inside = [file for file in files if file.is_relative_to(root)]
    commit, tracked = git(root, "rev-parse", "HEAD"), git(root, "ls-files", "-z", "--", *map(str, inside))
    patch = git(root, "diff", "--no-ext-diff", "--no-color", "HEAD", "--", *map(str, inside))
    if not tracked or patch is None or commit is None:  # a wheel may lie inside a repository that is not its own
        return GitState()
    known = {root / name for name in tracked.split("\0")}
    for file in (file for file in inside if file not in known):
        patch += f"not in git: {file.relative_to(root)}\n{file.read_text(encoding='utf-8', errors='replace')}\n"
    dirty = "true" if patch else "false" if len(inside) == len(files) else "unknown"
    branch = git(root, "branch", "--show-current") or "unknown"  # "" where a commit is checked out
    return GitState(commit.strip(), branch.strip(), dirty, patch)


def version_of(package: str) -> str:
    """Installed version of a package, or "not installed", as for this project in a working directory from Ray."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
