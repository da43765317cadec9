"""python -m sweeps fetch CLUSTER.yaml [NAME ...]: copy a cluster's results to this machine before `ray down`.

The head exports the sweeps of its store (python -m analysis export), and Ray's own rsync over SSH copies them. Runs on
the machine that ran `ray up`, and imports no torch.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from analysis.store.scales import SCALE_NAMES
from jepa_train.base.errors import ConfigError
from jepa_train.storage.paths import results_dir
from sweeps.engine.parser import LineParser

_ON_HEAD = "~/.jepa-fetch"  # exports on the head, until the next fetch


def fetch(words: Sequence[str]) -> int:
    """Copy the named sweeps, or all, and print where they are and how to show them.

    Raises:
        ConfigError: no such file, sweep or option; the cluster is not up.
    """
    form = "fetch CLUSTER.yaml [NAME ...] [--scale S] [--output DIR]"
    parser = LineParser("Copy a cluster's exports before ray down.", form)
    parser.add_argument("cluster", type=Path, metavar="CLUSTER.yaml", help="the file that ray up was given")
    parser.add_argument("names", nargs="*", metavar="NAME", help="sweeps; without any, all that have runs")
    parser.add_argument("--scale", choices=SCALE_NAMES, help="of sweeps that have several")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: exports in the results folder")
    options = parser.parse_intermixed_args(list(words))
    if not options.cluster.is_file():
        parser.error(f"CLUSTER.yaml must be the file that ray up was given, got {str(options.cluster)!r}")
    sys.stderr.write(f"exporting on the head of {options.cluster} ...\n")
    scale = ["--scale", options.scale] if options.scale else []
    export = shlex.join(["python", "-m", "analysis", "export", *options.names, *scale])
    _ray("exec", options.cluster, f"rm -rf {_ON_HEAD} && cd ~/jepa-sweeps && {export} --output {_ON_HEAD}")
    folder = options.output or results_dir() / "exports"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as copied:  # an incomplete copy replaces nothing
        _ray("rsync-down", options.cluster, f"{_ON_HEAD}/", f"{copied}/")
        for about in sorted(Path(copied).glob("*/sweep.json")):
            sweep = json.loads(about.read_text())
            target = folder / about.parent.name
            shutil.rmtree(target, ignore_errors=True)
            about.parent.rename(target)
            sys.stdout.write(f"{sweep['sweep']}: {sweep['runs']} runs of {sweep['store']}, in {target}\n")
    table = shlex.join(["python", "-m", "analysis", *(options.names[:1] or ["NAME"]), *scale, "--store", str(folder)])
    sys.stdout.write(f"tables: {table}\n")
    return 0


def _ray(command: str, file: Path, *words: str) -> None:
    """Run the `ray` that is installed beside this Python and has the cluster's version.

    Raises:
        ConfigError: it failed, with the head's own error or the line that tells what kept Ray from the head.
    """
    ray = [str(Path(sys.executable).with_name("ray")), command, str(file), *words]
    done = subprocess.run(
        ray, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode == 0:
        return
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines() if line.strip()]
    answers = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    causes = [line for line in lines if line.startswith(("ssh: ", "rsync: ")) or "not found!" in line]
    cause = (causes or lines or ["no answer"])[-1].rstrip(".")
    unreachable = f"{file}: the cluster must be up, got {cause!r}; run this where you ran ray up {file}"
    raise ConfigError(answers[-1] if answers else unreachable)
