"""The real dashboards in headless Chromium: optuna-dashboard, TensorBoard's reader, and MLflow's view of comparison.

A program that is not on PATH skips its test: pip install optuna-dashboard tensorboard, and Debian's package chromium.

Run: python -m pytest tests/slow/test_dashboards.py
"""

import contextlib
import dataclasses
import html
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from launches import record
from mlflow import MlflowClient

from analysis.event_files import write_events
from analysis.html_report import write_report
from analysis.optuna_study import importance, write_study
from analysis.runs import load_histories, load_runs
from analysis.select.objectives import goals_of
from analysis.ui import view_link
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import store_uri


def program(*names: str) -> str:
    """The path of the first program of these that is installed; without one the test is skipped."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"{' or '.join(names)} is not installed")
    return found


@contextlib.contextmanager
def served(command: Sequence[str], path: str) -> Iterator[str]:
    """Address of a server that `command --port N` starts, as soon as it answers at a path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            assert server.poll() is None, f"{command} ended"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def page_text(url: str, profile: Path) -> str:
    """The texts of a page after its scripts have run, one per line."""
    browser = program("chromium", "chromium-browser", "google-chrome")
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ]
    options += ["--window-size=1600,1400", "--virtual-time-budget=30000", "--dump-dom", url]
    page = subprocess.run([browser, *options], capture_output=True, text=True, check=True, timeout=180).stdout
    page = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page)
    return "\n".join(filter(None, map(str.strip, html.unescape(re.sub(r"<[^>]+>", "\n", page)).splitlines())))


def test_optuna_dashboard_shows_the_best_trial_and_the_importances_of_our_report(papers: str, tmp_path: Path) -> None:
    runs = load_runs("searched_mini", papers)
    (goal,) = goals_of(runs)
    file = write_study("searched_mini", papers, tmp_path)
    with served([program("optuna-dashboard"), str(file)], "/api/studies") as address:
        answer = urllib.request.urlopen(f"{address}/api/studies/0/param_importances").read()
        text = page_text(f"{address}/dashboard/studies/0", tmp_path / "profile")
    shares = importance(runs, goal, "PED-ANOVA")
    assert {one["name"]: one["importance"] for one in json.loads(answer)["param_importances"][0]} == shares
    report = write_report("searched_mini", papers, tmp_path).read_text()
    for axis, share in shares.items():
        assert f"\n{axis}\n" in text
        assert f"\n{share:.2f}\n" in text
        assert re.search(rf">{axis}</th>\s*<td[^>]*>[\d.]+</td>\s*<td[^>]*>{round(share, 2):g}<", report)
    best = goal.best_first(runs[runs["status"] == "finished"]).iloc[0]
    assert f"Best Trial (number={runs.index.get_loc(best.name)})\n{best['val/probe_top1']}" in text
    found = dict(re.findall(r"([\w.]+): ([\w.-]+)", re.search(r"Params = \[(.*)\]", text)[1]))
    assert {axis: float(value) for axis, value in found.items()} == {axis: best[axis] for axis in shares}


def test_tensorboard_reads_the_curves_of_every_run(papers: str, tmp_path: Path) -> None:
    python = Path(program("tensorboard")).with_name("python")
    folder = write_events("searched_mini", papers, tmp_path)
    script = """
import json, sys
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
found = EventMultiplexer().AddRunsFromDirectory(sys.argv[1]).Reload()
curves = {run: {tag: [[one.step, one.value] for one in found.Scalars(run, tag)] for tag in tags["scalars"]}
          for run, tags in found.Runs().items()}
print(json.dumps(curves))
"""
    output = subprocess.run([python, "-c", script, str(folder)], capture_output=True, text=True, check=True).stdout
    curves = json.loads(output.splitlines()[-1])
    runs, history = load_runs("searched_mini", papers), load_histories("searched_mini", store=papers)
    found = {
        (run.rpartition(" ")[2], tag, step): value
        for run, tags in curves.items()
        for tag, points in tags.items()
        for step, value in points
    }
    keys = runs.set_index("run_id")["cell_key"]
    expected = {(keys[one.run_id], one.metric, one.epoch): one.value for one in history.itertuples()}
    assert found == pytest.approx(expected)


@pytest.mark.usefixtures("results")
def test_the_link_in_mlflows_description_shows_the_charts_of_the_present_runs(tmp_path: Path) -> None:
    program("chromium", "chromium-browser", "google-chrome")
    sweep = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]})
    for epochs in (5, 8):  # the first launch is stale after the second
        plan = make_plan(dataclasses.replace(sweep, base=dataclasses.replace(DIGITS, epochs=epochs)), Path("study.py"))
        record(plan, plan.missing, lambda cell: {"epoch": float(cell.config.epochs), "val/probe_top1": 0.5})
    with served([sys.executable, "-m", "analysis.ui"], "/health") as address:
        client = MlflowClient(store_uri())
        experiment = client.get_experiment_by_name("study")
        (link,) = re.findall(r"\[Compare the runs\]\((.*)\)", experiment.tags["mlflow.note.content"])
        assert link.replace("%79", "y") == view_link(experiment.experiment_id, "compare")
        text = page_text(f"{address}/{link}", tmp_path / "profile")
    for part in ("Comparison", "Parallel Coordinates", "val/probe_top1", "2 matching runs"):
        assert part in text.replace("\n", " "), text
