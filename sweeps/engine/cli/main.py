"""Command line of a sweep file. It prints a first line before it imports what takes seconds."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jepa_train.base.checkout import check_checkout
from jepa_train.base.errors import ConfigError, check_utf8
from sweeps.engine.cli.args import read_words
from sweeps.engine.parser import refuse
from sweeps.engine.spec.scale import Study, about, at_scale


def main(study: Study, file: str, words: Sequence[str] | None = None) -> int:
    """Run one sweep file: `sys.exit(main(SWEEP, __file__))`, or `main(sweep, __file__)` with scales.

    Returns:
        As sweeps.engine.cli.modes.launch_sweeps.
    """
    try:
        check_utf8(str(Path(file).resolve()), named="the path of the sweep's file")
        options = read_words(sys.argv[1:] if words is None else words, about=about(study))
        if options.names:
            raise ConfigError(f"{options.names[0]!r} is no option and no assignment; --help lists the options")
        check_checkout(Path(file))
        options.announce([Path(file).stem])
        sweep = at_scale(study, options.scale)
    except ConfigError as error:
        return refuse(error)
    from sweeps.engine.cli.modes import launch_sweeps  # MLflow takes seconds to import

    return launch_sweeps([(sweep, Path(file).resolve())], options)
