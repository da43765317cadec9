"""fetch: bring a cluster's results home before `ray down`: python -m sweeps fetch CLUSTER.yaml [NAME ...]

The head exports the sweeps of its store (python -m analysis export), and Ray's own rsync over SSH carries them here.
It runs on the machine that ran `ray up`, and imports no torch.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from analysis.store.scales import SCALE_NAMES
from jepa_train.base.errors import ConfigError, short_repr
from jepa_train.storage.paths import results_dir
from sweeps.engine.parser import LineParser

_ON_HEAD = "~/.jepa-fetch"  # where the head leaves the exports, each in a folder of its own, for a day


def fetch(words: Sequence[str]) -> int:
    """Bring home the sweeps that the words name, or all; print what came, and what to do with it.

    Raises:
        ConfigError: no such file, sweep or option; the cluster is not up.
    """
    options = _options(words)
    file = _checked(options.cluster)
    _say(f"exporting on the head of {file} ...")
    asked = [*options.names, *(["--scale", options.scale] if options.scale else [])]
    export = shlex.join(["python", "-m", "analysis", "export", *asked])
    there = f"{_ON_HEAD}/{uuid.uuid4().hex}"
    old = f"find {_ON_HEAD} -mindepth 1 -maxdepth 1 -mmin +1440 -exec rm -rf {{}} +"
    _ray("exec", file, f"mkdir -p {_ON_HEAD} && {old} && cd ~/jepa-sweeps && {export} --output {there}")
    folder = options.output or results_dir() / "exports"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output must be a folder that can be made, got {folder} ({error.strerror})") from error
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as arrived:  # what is cut off replaces nothing
        _ray("rsync-down", file, f"{there}/", f"{arrived}/")
        came = sorted(about.parent for about in Path(arrived).glob("*/sweep.json"))
        if not came:
            raise ConfigError(f"{file}: the head's export must have arrived, got nothing; fetch again")
        for sweep in came:
            shutil.rmtree(folder / sweep.name, ignore_errors=True)
            told = json.loads((sweep / "sweep.json").read_text())
            sys.stdout.write(f"{told['sweep']}: {told['runs']} runs, in {sweep.rename(folder / sweep.name)}\n")
    names = " ".join(options.names[:1]) or "NAME"
    scale = f" --scale {options.scale}" if options.scale else ""
    sys.stdout.write(f"tables: python -m analysis {names}{scale} --store {shlex.quote(str(folder))}\n")
    return 0


def _checked(file: Path) -> Path:
    """The file, which is one of a cluster."""
    rule = "CLUSTER.yaml must be the file that `ray up` was given"
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"{rule}, got {str(file)!r}: {error.strerror}; name one, as cluster.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{rule}, got {str(file)!r}, which is no YAML: {short_repr(str(error))}; mend it") from error
    if not isinstance(content, Mapping) or not content.keys() >= {"cluster_name", "provider"}:
        raise ConfigError(f"{rule}, got {str(file)!r} without cluster_name and provider; name one, as cluster.yaml")
    return file


def _ray(command: str, file: Path, *words: str) -> None:
    """The `ray` that is installed beside this Python, which knows the cluster's version.

    Raises:
        ConfigError: it did not succeed: the cluster is not up, or what ran there says why.
    """
    ray = Path(sys.executable).with_name("ray")
    done = subprocess.run([ray, command, file, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise ConfigError(_problem(file, done.stdout.decode(errors="replace")))


def _problem(file: Path, told: str) -> str:
    """Of what `ray` printed, the line that counts: the head's own answer, or what kept Ray from the head."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", told).splitlines() if line.strip()]
    answers = [line for line in lines if line.startswith("error: ")]
    if answers:
        return answers[-1].removeprefix("error: ")
    causes = [line for line in lines if line.startswith(("ssh: ", "rsync: ")) or "not found!" in line]
    cause = (causes or lines or ["no answer"])[-1]
    return f"{file}: the cluster must be up, got {cause.rstrip('.')!r}; run this where you ran ray up {file}"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _options(words: Sequence[str]) -> argparse.Namespace:
    about = "Bring the exports of a cluster's sweeps home, before ray down."
    parser = LineParser(prog="python -m sweeps fetch", description=about, allow_abbrev=False)
    parser.command = "fetch: "
    parser.remedy = "write python -m sweeps fetch CLUSTER.yaml [NAME ...] [--scale S] [--output DIR]"
    say = parser.add_argument
    say("cluster", type=Path, metavar="CLUSTER.yaml", help="the file that ray up was given")
    say("names", nargs="*", metavar="NAME", help="sweeps; without any, all that have runs")
    say("--scale", choices=SCALE_NAMES, default="", help="of sweeps that have several")
    say("--output", type=Path, metavar="DIR", help="default: exports in the results folder")
    return parser.parse_intermixed_args(list(words))
