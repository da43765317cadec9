"""Sweeps by name: python -m sweeps NAME, and doctor."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sweeps as package
from jepa_train.base.errors import ConfigError, nearest, short_repr
from jepa_train.base.scale_names import Scale
from sweeps.engine.cli.args import read_words

# torch and Optuna take seconds to import: only where a sweep is loaded, so that --help and a misspelt name are fast.
if TYPE_CHECKING:
    from sweeps.engine.spec.sweep import Sweep

_USAGE = "python -m sweeps NAME [NAME ...] [options], or doctor [NAME], or fetch CLUSTER.yaml [NAME ...]"


def by_name(words: Sequence[str]) -> int:
    """Run the sweeps that a command line names, or doctor with the sweeps to check. Returns the exit code.

    Raises:
        ConfigError: an unknown option, or bad input in a sweep's file.
    """
    stems = {path.stem for path in Path(package.__path__[0]).glob("*.py") if not path.stem.startswith("_")}
    known = sorted(stems - {f"{stem}_table" for stem in stems})
    usage = f"{_USAGE}; sweeps: {', '.join(known)}"
    options = read_words(words, usage=usage)
    doctor, names = options.names[:1] == ("doctor",), options.names
    names = names[1:] if doctor else names
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None or not options.names:
        problem = f"error: {unknown!r} is no sweep{nearest(unknown, known)}\n" if unknown else ""
        sys.stderr.write(f"{problem}usage: {usage}\n")
        return 2
    if not doctor:
        options.announce(names)
    sweeps = [_load(name, options.scale) for name in names]
    if doctor:
        from sweeps.engine.cli.doctor import examine

        return examine([sweep for sweep, _ in sweeps], options.places)
    from sweeps.engine.cli.main import launch

    return launch(sweeps, options)


def _load(name: str, scale: Scale | None) -> "tuple[Sweep, Path]":
    from sweeps.engine.spec.scale import at_scale
    from sweeps.engine.spec.sweep import Sweep

    module = importlib.import_module(f"sweeps.{name}")
    sweep, file = getattr(module, "SWEEP", None), Path(str(module.__file__)).resolve()
    if hasattr(module, "sweep"):
        return at_scale(module.sweep, scale), file
    if not isinstance(sweep, Sweep):
        raise ConfigError(
            f"{file}: SWEEP must be Sweep(...), got {short_repr(sweep)}; write SWEEP = Sweep(name={name!r}, ...)"
        )
    return at_scale(sweep, None), file
