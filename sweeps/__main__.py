"""Several sweeps in one Ray session, in the order given: python -m sweeps demo_lejepa demo_rectified_lpjepa"""

import importlib
import sys

from analysis.store.uri import NothingToShow
from jepa_train.base.errors import ConfigError
from sweeps.engine.parser import LineParser, interrupted, refuse

_COMMANDS = {  # module and function, imported when called
    "fetch": "sweeps.engine.cli.fetch:fetch",
    "best": "sweeps.engine.cli.best:best",
    "new": "sweeps.engine.cli.new:new",
    "backup": "sweeps.engine.cluster.backup:backup",
    "notice": "sweeps.engine.cluster.notice:watch",
}


def main(words: list[str]) -> int:
    """Run sweeps by name, or a command. Those that import no torch parse their own words."""
    try:
        if words and words[0] in _COMMANDS:
            module, name = _COMMANDS[words[0]].split(":")
            code: int = getattr(importlib.import_module(module), name)(words[1:])
            return code
        if words[:1] == ["list"]:
            return _list(words[1:])
        from sweeps.engine.cli.named import by_name

        return by_name(words)
    except (ConfigError, NothingToShow) as error:
        return refuse(error)
    except KeyboardInterrupt:  # during the imports
        return interrupted()


def _list(words: list[str]) -> int:
    """Print the sweeps of the store, and name it."""
    from analysis.store.sources import open_source, shown
    from analysis.store.uri import store_line, store_uri
    from analysis.sweep_list import sweep_lines

    parser = LineParser(
        prog="python -m sweeps list", description="The sweeps of a store, the latest first.", allow_abbrev=False
    )
    parser.command, parser.remedy = "list: ", "write python -m sweeps list [--store URI]"
    parser.add_argument(
        "--store", metavar="URI", help="an MLflow store or a folder of exports; default: that of results/"
    )
    store = parser.parse_args(words).store or store_uri()
    sys.stdout.write("\n".join(sweep_lines(open_source(store))) + "\n")
    sys.stderr.write(f"{store_line(store, shown(store))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
