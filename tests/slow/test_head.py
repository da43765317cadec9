"""The benchmark of a head: what it computes is what is written, and it tells processes by what they are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from benchmarks.head_checkpoints import checkpoint_rows
from benchmarks.head_lanes import Measured, _kind
from benchmarks.head_store import _written
from sweeps.engine.store.reader import store_uri


def test_the_bytes_of_a_checkpoint_are_those_of_its_file() -> None:
    rows = {row.what: row.value for row in checkpoint_rows(("cifar10",), times=1)}
    assert rows["checkpoint in flight, the file"] == pytest.approx(rows["checkpoint in flight"], rel=0.01)
    assert rows["final checkpoint"] == pytest.approx(rows["checkpoint in flight"] / 3, rel=0.01)  # AdamW: two moments
    rate = rows["writing it to a disk, with fsync"]
    assert 0 < rows["training waits for it"] < rows["checkpoint in flight, the file"] / rate


@pytest.mark.usefixtures("results")
def test_a_cells_whole_life_is_written_and_timed() -> None:
    rows = [*_written("sqlite", 2, [])]
    steps = ("a cell's start", "one epoch", "ten epochs at once", "a cell's end")
    assert [(row.what, row.value > 0) for row in rows] == [(f"store, CPU of {step}, driver", True) for step in steps]
    client = MlflowClient(store_uri())
    runs = client.search_runs([client.get_experiment_by_name("head").experiment_id])
    assert [run.data.tags["status"] for run in runs] == ["finished", "finished"]
    history = client.get_metric_history(runs[0].info.run_id, "val/metric7")
    assert [point.step for point in history] == [*range(1, 12)]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["ray::Mailbox.take"], "Ray: Mailbox"),
        (["ray::RayTrainWorker", ""], "Ray: RayTrainWorker"),
        (["/x/ray/core/src/ray/gcs/gcs_server", "--log_dir=/x/monitor"], "Ray: gcs_server"),
        (["python", "-u", "/x/ray/_private/log_monitor.py"], "Ray: log_monitor"),
        (["python", "/x/ray/autoscaler/_private/monitor.py"], "Ray: monitor"),
        (["sleep", "9"], "Ray: sleep"),
    ],
)
def test_a_process_is_told_by_its_title(words: list[str], kind: str) -> None:
    process: Any = SimpleNamespace(cmdline=lambda: words, name=lambda: Path(words[0]).name)
    assert _kind(process) == kind


def test_a_row_says_what_it_is_the_median_of() -> None:
    row = Measured(what="memory, driver", at="1 once", value=601.25, unit="MB", n=3)
    assert row.cells() == ("memory, driver", "1 once", "601.2", "MB", "3")
