"""Several sweeps in one Ray session, in the order given: python -m sweeps demo_lejepa demo_rectified_lpjepa"""

import importlib
import sys
from pathlib import Path

from jepa_train.checks import ConfigError, nearest, shown
from sweeps.engine.errors import one_line
from sweeps.engine.launch import launch
from sweeps.engine.spec import Sweep


def main(words: list[str]) -> int:
    """The words that are no option and no assignment are sweeps; the rest goes to launch."""
    names = [word for word in words if "=" not in word and not word.startswith("-")]
    rest = [word for word in words if word not in names]
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    usage = f"usage: python -m sweeps NAME [NAME ...] [--dry-run]; sweeps: {', '.join(known)}\n"
    if not names and {"-h", "--help"} & set(rest):
        sys.stdout.write(usage)
        return 0
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None or not names:
        problem = f"error: {unknown!r} is no sweep{nearest(unknown, known)}\n" if unknown else ""
        sys.stderr.write(problem + usage)
        return 2
    try:
        sweeps = [_load(name) for name in names]
    except (ValueError, TypeError) as error:
        line = one_line(error)
        if line is None:
            raise
        sys.stderr.write(f"error: {line}\n")
        return 2
    return launch(sweeps, rest)


def _load(name: str) -> tuple[Sweep, Path]:
    module = importlib.import_module(f"sweeps.{name}")
    sweep, file = getattr(module, "SWEEP", None), Path(str(module.__file__)).resolve()
    if not isinstance(sweep, Sweep):
        raise ConfigError(
            f"{file}: SWEEP must be Sweep(...), got {shown(sweep)}; write SWEEP = Sweep(name={name!r}, ...)"
        )
    return sweep, file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
