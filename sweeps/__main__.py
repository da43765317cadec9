"""Several sweeps in one Ray session, in the order given: python -m sweeps demo_lejepa demo_rectified_lpjepa"""

import sys

from analysis.store.uri import NothingToShow
from jepa_train.base.errors import ConfigError
from sweeps.engine.parser import interrupted, refuse


def main(words: list[str]) -> int:
    """Run sweeps by name, or a command. Those that import no torch parse their own words."""
    try:
        if words[:1] == ["fetch"]:
            from sweeps.engine.cli.fetch import fetch

            return fetch(words[1:])
        if words[:1] == ["best"]:
            from sweeps.engine.cli.best import best

            return best(words[1:])
        if words[:1] == ["backup"]:
            from sweeps.engine.cluster.backup import backup

            return backup(words[1:])
        if words[:1] == ["notice"]:
            from sweeps.engine.cluster.notice import watch

            return watch(words[1:])
        from sweeps.engine.cli.named import by_name

        return by_name(words)
    except (ConfigError, NothingToShow) as error:
        return refuse(error)
    except KeyboardInterrupt:  # during the imports
        return interrupted()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
