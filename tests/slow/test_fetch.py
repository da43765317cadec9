"""fetch copies the exports of a cluster's head, or names in one line what keeps it from that.

The cluster is a stand-in for `ray`, which runs the head's commands in a home of its own on this machine.
Run: python -m pytest tests/slow/test_fetch.py
"""

import sys
from pathlib import Path

import pytest

from analysis.store.export import write_export
from sweeps.__main__ import main

ROOT = Path(__file__).parents[2]
RAY = f"""#!{sys.executable}
import os, shutil, subprocess, sys
from pathlib import Path

command, file, *words = sys.argv[1:]
here = Path(__file__).parent
if (here / command).exists():  # its answer instead of the command's
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
    ray.chmod(0o755)
    python.symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    file = tmp_path / "cluster.yaml"
    file.write_text("cluster_name: jepa\nprovider: {type: local}\n")
    return file


def test_every_sweep_with_runs_is_copied_and_replaces_an_older_copy(
    cluster: Path, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "results/exports"
    (home / "seeds").mkdir(parents=True)
    (home / "seeds" / "old").touch()
    assert main(["fetch", str(cluster)]) == 0
    names = ["demo_lejepa", "demo_rectified_lpjepa", "demo_two_workers", "fair", "front", "seeds"]
    for name in names:
        write_export(name, store, str(tmp_path / "expected"))
    expected, found = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path / "expected", home)
    )
    assert found == expected
    out = capsys.readouterr().out.splitlines()
    assert out[-2] == f"seeds: 4 runs of {store}, in {home / 'seeds'}"
    assert out[-1] == f"tables: python -m analysis NAME --store {home}"


def test_the_heads_own_error_is_the_answer_and_a_name_runs_nothing_there(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", str(cluster), "seed", f"seeds; touch {tmp_path}/ran", "$(touch ran)"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: 'seed' is no sweep of the store; did you mean 'seeds'?")
    assert not [*tmp_path.rglob("ran")]


def test_a_cluster_that_does_not_answer_changes_nothing(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rsync-down").write_text("rsync: connection unexpectedly closed\nError: SSH command failed.")
    out = tmp_path / "out"
    (out / "seeds").mkdir(parents=True)
    assert main(["fetch", str(cluster), "seeds", "--output", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {cluster}: the cluster must be up, got ")
    assert error.endswith(f"unexpectedly closed'; run this where you ran ray up {cluster}")
    assert [file.name for file in out.rglob("*")] == ["seeds"]


@pytest.mark.parametrize("words", [[], ["cluster.yaml", "--scal", "lab"]])
def test_a_wrong_option_is_refused_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", *words]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: fetch: ")
    assert error.endswith("; write python -m sweeps fetch CLUSTER.yaml [NAME ...] [--scale S] [--output DIR]")
