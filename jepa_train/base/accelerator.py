"""Optional parts of the installation that speed up a GPU."""

import functools
import importlib.util


@functools.cache
def has_triton() -> bool:
    """True if Triton is installed; torch's builds for Windows and macOS lack it."""
    return importlib.util.find_spec("triton") is not None
