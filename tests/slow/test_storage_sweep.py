"""A sweep whose checkpoints lie in an object store: kept there, read from there; without it nothing starts."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_train.storage import bucket
from jepa_train.storage.storage import storage_path
from sweeps.engine.cli.main import main
from sweeps.engine.spec.sweep import Sweep

FILE = """
import dataclasses, sys
from jepa_train.methods import LeJEPA
from jepa_train.config.presets import DIGITS
from sweeps.engine import Sweep, main
from sweeps.engine.cluster.session import ray_session
SWEEP = Sweep(name="kept", purpose="Where checkpoints lie.", cpus_per_worker=2, grid={"method.lamb": [0.05]},
    base=dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=1))
if __name__ == "__main__":
    with ray_session(num_cpus=2):  # as the cell asks for, on any machine
        code = main(SWEEP, __file__)
    sys.exit(code)
"""


@pytest.fixture
def file(results: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sweep's; its results lie beside it, its checkpoints in a bucket."""
    monkeypatch.setenv("JEPA_STORAGE", s3)
    file = results.parent / "kept.py"
    file.write_text(FILE)
    return file


def sweep_of(file: Path) -> Sweep:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SWEEP


def test_a_cell_leaves_its_weights_in_the_bucket_and_is_evaluated_from_there(
    file: Path, s3: str, capsys: pytest.CaptureFixture[str]
):
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    sweep = sweep_of(file)
    assert main(sweep, str(file), ["--explain", "lamb=0.05"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "checkpoint" in line]
    assert line.split()[1].startswith(str(storage_path(s3) / "checkpoints" / "kept").partition("?")[0])
    assert "/final.pt?" in line
    assert main(sweep, str(file), ["--evaluate", "probe.protocols=knn"]) == 0
    assert "test/knn_top1 0." in capsys.readouterr().out
    assert not (file.parent / "results" / "checkpoints").exists()
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    written = [path for path in file.parent.rglob("*") if path.is_file()]
    assert [path for path in written if secret in path.read_bytes()] == []
    assert secret.decode() not in done.stdout + done.stderr


def test_without_the_storage_nothing_starts(
    file: Path, s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sweep = sweep_of(file)
    for where, reason in (
        (s3.replace("s3://", "s3://no-"), "JEPA_STORAGE must be where checkpoints can be kept: s3://no-bucket"),
        ("s3://me:hunter2@bucket/x", "JEPA_STORAGE must hold no credentials, got some in 's3://bucket/x'"),
        (str(file / "below"), "JEPA_STORAGE must be where checkpoints can be kept: "),
    ):
        monkeypatch.setenv("JEPA_STORAGE", where)
        assert main(sweep, str(file), []) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {reason}")
        assert "hunter2" not in line
    assert not (file.parent / "results" / "ray").exists()


def test_without_the_data_nothing_starts(
    file: Path, s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(bucket, "_PAUSES_S", ())
    sweep = sweep_of(file)
    for where, reason in (
        (s3.replace("s3://", "s3://no-"), "data.path must name a folder or an archive, got 's3://no-bucket"),
        ("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http", "data.path 's3://bucket/x?endpoint_override=127"),
    ):
        assert main(sweep, str(file), [f"data.path={where}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {reason}")
    assert not (file.parent / "results" / "ray").exists()
