"""Sweeps by name: python -m sweeps NAME, and doctor."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sweeps as package
from jepa_train.base.checkout import check_checkout
from jepa_train.base.errors import ConfigError, nearest, short_repr
from jepa_train.base.scale_names import Scale
from sweeps.engine.cli.args import read_words

# torch and Optuna take seconds to import: only where a sweep is loaded, so that --help and a misspelt name are fast.
if TYPE_CHECKING:
    from sweeps.engine.spec.sweep import Sweep

_USAGE = (
    "python -m sweeps NAME [NAME ...] [options], or doctor [NAME or FILE.py], or best NAME, or new NAME [--search], "
    "or list, or fetch CLUSTER.yaml [NAME ...]"
)


def by_name(words: Sequence[str]) -> int:
    """Run the sweeps that a command line names, or doctor with the sweeps to check. Returns the exit code.

    Raises:
        ConfigError: an unknown name or option, or bad input in a sweep's file.
    """
    stems = {path.stem for path in Path(package.__path__[0]).glob("*.py") if not path.stem.startswith("_")}
    known = sorted(stems - {f"{stem}_table" for stem in stems})
    options = read_words(words, usage=f"{_USAGE}; sweeps: {', '.join(known)}")
    doctor, names = options.names[:1] == ("doctor",), options.names
    names = names[1:] if doctor else names
    if not options.names:
        raise ConfigError("the first word must be a sweep, doctor, best or fetch; --help lists them")
    for name in names:
        if name not in known and not (doctor and Path(name).suffix == ".py"):
            raise ConfigError(f"{name!r} is no sweep{_remedy(name, known, doctor=doctor)}")
    if not doctor:
        options.announce(names)
    sweeps = [_load(name, options.scale, known) for name in names]
    if doctor:
        from sweeps.engine.cli.doctor import examine

        return examine([sweep for sweep, _ in sweeps], options.overrides)
    from sweeps.engine.cli.modes import launch_sweeps

    return launch_sweeps(sweeps, options)


def _remedy(name: str, known: Sequence[str], *, doctor: bool) -> str:
    """End of the message on an unknown name: the command for a file in this folder, or the nearest name."""
    file = f"{name.removesuffix('.py')}.py"
    if Path(file).is_file():
        return f"; doctor {file} checks it" if doctor else f"; python {file} runs it"
    return nearest(name, known) or "; --help lists them" + (", and doctor takes the path of a file" if doctor else "")


def _load(name: str, scale: Scale | None, known: Sequence[str]) -> "tuple[Sweep, Path]":
    """The sweep of a name, or of the path of a file, whose folder Python searches as it does when the file is run."""
    from sweeps.engine.spec.scale import at_scale
    from sweeps.engine.spec.sweep import Sweep

    if name in known:
        module = importlib.import_module(f"sweeps.{name}")
    else:
        path = Path(name).resolve()
        if not path.is_file():
            raise ConfigError(f"doctor must get a sweep or the path of its file, got {name!r}; there is no such file")
        check_checkout(path)
        sys.path.insert(0, str(path.parent))
        module = importlib.import_module(path.stem)
    sweep, file = getattr(module, "SWEEP", None), Path(str(module.__file__)).resolve()
    if hasattr(module, "sweep"):
        return at_scale(module.sweep, scale), file
    if not isinstance(sweep, Sweep):
        raise ConfigError(
            f"{file}: SWEEP must be Sweep(...), got {short_repr(sweep)}; write SWEEP = Sweep(name={file.stem!r}, ...)"
        )
    return at_scale(sweep, None), file
