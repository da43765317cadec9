"""Several sweeps in one Ray session, in the order given: python -m sweeps demo_lejepa demo_rectified_lpjepa"""

import importlib
import sys

from analysis.store.uri import NothingToShow
from jepa_train.base.errors import ConfigError
from sweeps.engine.parser import interrupted, refuse

COMMANDS = {  # module and function, imported when called: those that import no torch parse their own words
    "fetch": "sweeps.engine.cli.fetch:fetch",
    "best": "sweeps.engine.cli.best:best",
    "list": "sweeps.engine.cli.best:list_sweeps",
    "new": "sweeps.engine.cli.new:new",
    "backup": "sweeps.engine.cluster.backup:backup",
    "notice": "sweeps.engine.cluster.notice:watch",
}


def main(words: list[str]) -> int:
    """Run sweeps by name, or a command."""
    command = COMMANDS.get(words[0]) if words else None
    module, name = (command or "sweeps.engine.cli.named:by_name").split(":")
    try:
        code: int = getattr(importlib.import_module(module), name)(words[1:] if command else words)
    except (ConfigError, NothingToShow) as error:
        return refuse(error)
    except KeyboardInterrupt:  # during the imports
        return interrupted()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
