"""TensorBoard event files against the store, read record by record; tests/slow/test_dashboards.py has TensorBoard.

Run: python -m pytest tests/unit/analysis/test_event_files.py
"""

import shutil
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from analysis.__main__ import main
from analysis.event_files import write_events
from analysis.runs import load_histories, load_runs
from analysis.store.sources import open_source


def events_in(folder: Path) -> list[Event]:
    """The events of the one file in a run's folder: records of length, checksum, content, checksum."""
    (file,) = folder.iterdir()
    content, found = file.read_bytes(), []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return found


def curves_in(folder: Path) -> dict[str, dict[int, tuple[float, float]]]:
    """Metric -> epoch -> value and wall time."""
    curves: dict[str, dict[int, tuple[float, float]]] = {}
    for event in events_in(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                curves.setdefault(value.tag, {})[event.step] = value.simple_value, event.wall_time
    return curves


def test_a_run_has_its_curves_with_their_times(store: str, tmp_path: Path) -> None:
    folder = write_events("demo_lejepa", store, tmp_path)
    runs, history = load_runs("demo_lejepa", store), load_histories("demo_lejepa", store=store)
    assert folder == tmp_path / "demo_lejepa"
    assert {path.name.rpartition(" ")[2] for path in folder.iterdir()} == {*runs["cell_key"]}
    points = open_source(store).points("demo_lejepa", runs["run_id"].tolist(), [])
    times = {(one.run_id, one.metric, one.epoch): one.at / 1000 for one in points.itertuples()}
    compared = 0
    for run in runs.itertuples():
        curves = curves_in(next(folder.glob(f"* {run.cell_key}")))
        own = history[history["run_id"] == run.run_id]
        assert {*curves} == {*own["metric"]}
        for point in own.itertuples():
            value, at = curves[point.metric][point.epoch]
            assert value == pytest.approx(point.value, nan_ok=True)
            assert at == pytest.approx(times[run.run_id, point.metric, point.epoch], abs=1e-3)
            compared += 1
    assert compared == len(history) > 0


def test_an_export_has_the_time_of_the_runs_start_and_the_settings_are_in_the_tab_hparams(
    papers: str, tmp_path: Path
) -> None:
    folder = write_events("searched_mini", papers, tmp_path)
    run = load_runs("searched_mini", papers).iloc[0]
    own = folder / f"{run['run_name']} {run['cell_key']}"
    curve = curves_in(own)["val/probe_top1"]
    assert [value for value, _ in curve.values()] == pytest.approx([0.3, run["val/probe_top1"]])
    assert {at for _, at in curve.values()} == {run["start_time"].timestamp()}
    tags = {value.tag: value.metadata.plugin_data for event in events_in(own) for value in event.summary.value}
    settings = tags["_hparams_/session_start_info"].content
    assert all(name.encode() in settings for name in ("method.lamb", "method.num_slices", "seed"))
    assert b"val/probe_top1" in tags["_hparams_/experiment"].content


def test_a_second_export_replaces_the_first_and_nothing_else(papers: str, tmp_path: Path) -> None:
    folder = write_events("searched_mini", papers, tmp_path)
    own = next(folder.iterdir())
    (own / "notes.txt").write_text("mine")
    stale = folder / "a run that the sweep no longer asks for"
    shutil.copytree(next(path for path in folder.iterdir() if path != own), stale)
    write_events("searched_mini", papers, tmp_path)
    assert [*stale.iterdir()] == []
    assert len([*own.glob("events*")]) == 1
    assert (own / "notes.txt").read_text() == "mine"


def test_the_command(papers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tensorboard", "--store", papers, "--output", str(tmp_path)]
    assert main(["export", "searched", *options]) == 0
    folder = tmp_path / "searched_mini"
    assert capsys.readouterr().out.splitlines() == [str(folder), f"open it with: tensorboard --logdir {folder}"]
    assert main(["export", "searched", "rectified_features", *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"open it with: tensorboard --logdir {tmp_path}"
    for words in (["searched", "--tensorboard"], ["export", "--tensorboard", "--output", "s3://bucket/a"]):
        with pytest.raises(SystemExit):
            main(words)
    errors = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert [line.partition(": error: ")[2] for line in errors] == [
        "--tensorboard is for export: python -m analysis export SWEEP --tensorboard",
        "--output must be a folder of this machine, got 's3://bucket/a'; only an export as tables writes to a URL",
    ]
