"""The checkout that the code comes from, the refusal to run a sweep file of another one, and the running file."""

import functools
import subprocess
import sys
from pathlib import Path

from jepa_train.base.errors import ConfigError

PROJECT = Path(__file__).resolve().parents[2]  # the folder of the packages


def check_checkout(file: Path) -> None:
    """Refuse a sweep file of another checkout: its cells would be computed by code that is not beside it.

    Python imports the packages of the environment, which may be those of another checkout.

    Raises:
        ConfigError: the file lies in a checkout, and the packages are not that checkout's.
    """
    own = _checkout_of(file.resolve()) or PROJECT
    if own != PROJECT:
        raise ConfigError(
            f"{file.name} must run with the code of its own checkout, {own}, but Python imports that of {PROJECT}; "
            f"set PYTHONPATH={own}, or pip install -e {own}"
        )


def refuse_other_checkout() -> None:
    """End the command with one line if its file is of another checkout: later it may fail to import a name."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    try:
        check_checkout(Path(file) if file else PROJECT)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


def is_running(file: str | Path | None) -> bool:
    """True for the file that Python runs, a sweep's own: an edit of its grid would count as an edit of a definition."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    return file is not None and main is not None and Path(file).resolve() == Path(main).resolve()


@functools.cache
def commit() -> str:
    """Git's commit of the running code, and "+dirty" where files differ from it; "" outside of a checkout."""
    words = ("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+dirty")
    return (git(PROJECT, *words) or "").strip() if (PROJECT / ".git").exists() else ""


def git(root: Path, *words: str) -> str | None:
    """Git's answer about a folder, or None if it has none."""
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _checkout_of(file: Path) -> Path | None:
    """The checkout that holds a file; None for one elsewhere, or in a Python environment inside a checkout."""
    for folder in file.parents:
        if folder.name == "site-packages" or (folder / "pyvenv.cfg").is_file():
            return None
        if (folder / "pyproject.toml").is_file() and (folder / "jepa_train" / "__init__.py").is_file():
            return (folder / "jepa_train").resolve().parent  # a link has the code of another folder
    return None
