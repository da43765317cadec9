"""fetch brings home what the head's store holds, and says in one line what keeps it from that.

The cluster is a stand-in for `ray`, which runs the head's commands in a home of its own on this machine.
"""

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.store.export import write_export
from sweeps.__main__ import main
from sweeps.engine.cli import fetch

ROOT = Path(__file__).parents[2]
RAY = f"""#!{sys.executable}
import json, os, shutil, subprocess, sys
from pathlib import Path

command, file, *words = sys.argv[1:]
here = Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if (here / command).exists():  # what it answers in the place of doing it
    print((here / command).read_text())
    sys.exit(1)
if command == "exec":
    sys.exit(subprocess.run(["bash", "-c", words[0]], env=os.environ | {{"HOME": str(here / "head")}}).returncode)
source, target = words
shutil.copytree(source.replace("~", str(here / "head"), 1), target, dirs_exist_ok=True)
"""


@pytest.fixture
def cluster(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a cluster that is up; beside it `ray` and the head's home."""
    head = tmp_path / "head"
    head.mkdir()
    (head / "jepa-sweeps").symlink_to(ROOT)
    ray, python = tmp_path / "ray", tmp_path / "python"
    ray.write_text(RAY)
    ray.chmod(ray.stat().st_mode | stat.S_IXUSR)
    python.symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    file = tmp_path / "cluster.yaml"
    file.write_text("cluster_name: jepa\nprovider: {type: local}\n")
    return file


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What went to stderr, but for the line that says what is being done."""
    return lambda: "".join(
        line for line in capsys.readouterr().err.splitlines(keepends=True) if not line.startswith("exporting")
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_every_sweep_with_runs_comes_home(
    cluster: Path, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", str(cluster)]) == 0
    home = tmp_path / "results/exports"
    named = sorted(folder.name for folder in home.iterdir())
    assert named == ["demo_lejepa", "demo_rectified_lpjepa", "demo_two_workers", "fair", "front", "seeds"]
    for name in named:
        write_export(name, store, tmp_path / "expected")
    assert contents(home) == contents(tmp_path / "expected")
    out = capsys.readouterr().out.splitlines()
    assert out[-2] == f"seeds: 4 runs, in {home / 'seeds'}"
    assert out[-1] == f"tables: python -m analysis NAME --store {home}"
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert [call[:2] for call in calls] == [["exec", str(cluster)], ["rsync-down", str(cluster)]]


def test_two_at_once_do_not_meet(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray, began = fetch._ray, []

    def late(command: str, *words: Any) -> None:
        if command == "rsync-down" and not began:
            began.append(command)
            assert main(["fetch", str(cluster), "fair", "--output", str(tmp_path / "second")]) == 0
        ray(command, *words)

    monkeypatch.setattr(fetch, "_ray", late)
    assert main(["fetch", str(cluster), "seeds", "--output", str(tmp_path / "first")]) == 0
    assert [folder.name for folder in (tmp_path / "first").iterdir()] == ["seeds"]
    assert [folder.name for folder in (tmp_path / "second").iterdir()] == ["fair"]
    left = [*(tmp_path / "head/.jepa-fetch").iterdir()]
    os.utime(left[0], (0, 0))
    assert main(["fetch", str(cluster), "seeds"]) == 0
    assert not left[0].exists(), "what is a day old"
    assert left[1].exists()


def test_what_came_before_is_replaced_and_the_rest_stays(cluster: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("seeds", "other"):
        (out / name).mkdir(parents=True)
        (out / name / "old").touch()
    assert main(["fetch", str(cluster), "seeds", "--output", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["other", "seeds"]
    assert (out / "other/old").exists()
    assert not (out / "seeds/old").exists()
    assert (out / "seeds/sweep.json").exists()


def test_a_sweep_that_the_store_has_not_is_named_with_the_nearest(
    cluster: Path, tmp_path: Path, said: Callable[[], str]
) -> None:
    assert main(["fetch", str(cluster), "seed"]) == 2
    assert said().endswith("; did you mean 'seeds'?\n")
    assert main(["fetch", str(cluster), "seeds", "--scale", "lab"]) == 2
    assert said().startswith("error: sweep seeds_lab has no runs in ")
    assert not (tmp_path / "results").exists()


def test_a_name_runs_nothing_on_the_head(cluster: Path, tmp_path: Path, said: Callable[[], str]) -> None:
    assert main(["fetch", str(cluster), f"seeds; touch {tmp_path}/ran", "$(touch ran)"]) == 2
    assert said().count("\n") == 1
    assert not [*tmp_path.rglob("ran")]


@pytest.mark.parametrize(
    ("command", "answer", "cause"),
    [
        (
            "exec",
            "Traceback\nRuntimeError: Head node of cluster (jepa) not found!",
            "Head node of cluster (jepa) not found!",
        ),
        (
            "exec",
            "ssh: connect to host 192.0.2.1 port 22: No route to host\r\n\x1b[31mError:\x1b[39m SSH command failed.",
            "port 22: No route to host",
        ),
        ("rsync-down", "rsync: connection unexpectedly closed\nError: SSH command failed.", "unexpectedly closed"),
    ],
)
def test_a_cluster_that_does_not_answer_changes_nothing(
    command: str, answer: str, cause: str, cluster: Path, tmp_path: Path, said: Callable[[], str]
) -> None:
    (tmp_path / command).write_text(answer)
    out = tmp_path / "out"
    (out / "seeds").mkdir(parents=True)
    assert main(["fetch", str(cluster), "seeds", "--output", str(out)]) == 2
    told = said()
    assert told.startswith(f"error: {cluster}: the cluster must be up, got ")
    assert told.endswith(f"{cause}'; run this where you ran ray up {cluster}\n")
    assert [file.name for file in out.rglob("*")] == ["seeds"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (None, "No such file or directory; name one, as cluster.yaml"),
        ("a: [", "which is no YAML: "),
        ("!!python/object/apply:os.system ['true']", "which is no YAML: "),
        ("apiVersion: ray.io/v1", "without cluster_name and provider; name one, as cluster.yaml"),
    ],
)
@pytest.mark.usefixtures("cluster")
def test_a_file_that_is_no_cluster_s_is_answered_in_one_line(
    text: str | None, cause: str, tmp_path: Path, said: Callable[[], str]
) -> None:
    file = tmp_path / "other.yaml"
    if text is not None:
        file.write_text(text)
    assert main(["fetch", str(file)]) == 2
    told = said()
    assert told.startswith("error: CLUSTER.yaml must be the file that `ray up` was given, got ")
    assert cause in told
    assert told.count("\n") == 1
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("words", [[], ["cluster.yaml", "--scal", "lab"], ["cluster.yaml", "--scale", "big"]])
def test_what_is_misspelt_is_answered_in_one_line(words: list[str], said: Callable[[], str]) -> None:
    assert main(["fetch", *words]) == 2
    told = said()
    assert told.startswith("error: fetch: ")
    assert told.endswith("; write python -m sweeps fetch CLUSTER.yaml [NAME ...] [--scale S] [--output DIR]\n")
    assert told.count("\n") == 1
