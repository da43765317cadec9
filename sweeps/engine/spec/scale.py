"""Study of a sweep file: one sweep, or one at the scale of the command line."""

import sys
from collections.abc import Callable

from jepa_train.base.errors import ConfigError
from jepa_train.base.scale_names import SCALES, Scale
from sweeps.engine.spec.sweep import Sweep

Study = Sweep | Callable[[Scale], Sweep]


def at_scale(study: Study, scale: Scale | None) -> Sweep:
    """The sweep of a study at a scale; None where the command line names none.

    Raises:
        ConfigError: a scale is missing, or given for a sweep that has none.
    """
    if isinstance(study, Sweep):
        if scale is not None:
            raise ConfigError(f"--scale is of sweep files with scales, got {scale} for {study.name}; leave it out")
        return study
    if scale is None:
        known = "; ".join(f"{name} ({about})" for name, about in SCALES.items())
        raise ConfigError(f"--scale must be given, one of {known}")
    return study(scale)


def about(study: Study) -> str:
    """Purpose of a study: the docstring of its file."""
    text = study.purpose if isinstance(study, Sweep) else sys.modules[study.__module__].__doc__
    return str(text).strip()
