"""A sweep with its checkpoints in a bucket: they are written there and read from there; nothing starts without it.

Run: python -m pytest tests/slow/test_storage_sweep.py
"""

import dataclasses
import os
from pathlib import Path

import pytest

from jepa_train.config.presets import DIGITS
from jepa_train.methods import LeJEPA
from jepa_train.storage import storage
from jepa_train.storage.storage import storage_path
from sweeps.engine import Sweep, main
from sweeps.engine.cluster.session import ray_session

SWEEP = Sweep(
    name="kept",
    purpose="Checkpoints in a bucket.",
    cpus_per_worker=2,
    grid={"method.lamb": [0.05]},
    base=dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=1),
)
FILE = "kept.py"


@pytest.fixture(autouse=True)
def bucket(results: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: ARG001
    """URL of a bucket for the checkpoints; the other results are local."""
    monkeypatch.setenv("JEPA_STORAGE", s3)
    monkeypatch.setattr(storage, "PAUSES_S", ())
    return s3


def test_a_cell_leaves_its_weights_in_the_bucket_and_is_evaluated_from_there(
    results: Path, bucket: str, capsys: pytest.CaptureFixture[str]
):
    with ray_session(num_cpus=2):  # after the credentials are set, for Ray's workers
        assert main(SWEEP, FILE, []) == 0
    assert main(SWEEP, FILE, ["--explain", "lamb=0.05"]) == 0
    printed = capsys.readouterr()
    (line,) = [line for line in printed.out.splitlines() if "checkpoint" in line and "final.pt" in line]
    assert str(storage_path(bucket) / "checkpoints" / "kept").partition("?")[0] in line
    assert main(SWEEP, FILE, ["--evaluate", "probe.protocols=knn"]) == 0
    assert "test/knn_top1 0." in capsys.readouterr().out
    assert not (results / "checkpoints").exists()
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    files = [path for path in results.rglob("*") if path.is_file()]
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert secret not in printed.out + printed.err


def refusal(capsys: pytest.CaptureFixture[str], results: Path, *words: str) -> str:
    """The one line of a launch that does not start."""
    assert main(SWEEP, FILE, [*words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not (results / "ray").exists()
    return line


def test_without_the_storage_nothing_starts(
    bucket: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for where, reason in (
        (bucket.replace("s3://", "s3://no-"), "JEPA_STORAGE must be where checkpoints can be kept: s3://no-bucket"),
        ("s3://me:hunter2@bucket/x", "JEPA_STORAGE must hold no credentials, got some in 's3://bucket/x'"),
        (f"{__file__}/below", "JEPA_STORAGE must be where checkpoints can be kept: "),
    ):
        monkeypatch.setenv("JEPA_STORAGE", where)
        line = refusal(capsys, results)
        assert line.startswith(f"error: {reason}")
        assert "hunter2" not in line


def test_without_the_data_nothing_starts(bucket: str, results: Path, capsys: pytest.CaptureFixture[str]):
    for where, reason in (
        (bucket.replace("s3://", "s3://no-"), "data.path must name a folder or an archive, got 's3://no-bucket"),
        ("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http", "data.path 's3://bucket/x?endpoint_override=127"),
    ):
        assert refusal(capsys, results, f"data.path={where}").startswith(f"error: {reason}")
