"""One launch holds a sweep; the second says who, and a holder that died is taken over."""

import dataclasses
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from jepa_train.base.errors import ConfigError
from sweeps.engine.store import lock
from sweeps.engine.store.experiment import open_experiment
from sweeps.engine.store.lock import LockOwner, hold, holder_of
from sweeps.engine.store.reader import store_uri

PROCESSES = multiprocessing.get_context("forkserver")  # which imports MLflow and torch once for all of them
PROCESSES.set_forkserver_preload(["sweeps.engine.store.lock"])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A store with the sweep's experiment: MLflow takes seconds to make one."""
    with pytest.MonkeyPatch.context() as patch:
        results = tmp_path_factory.mktemp("template")
        patch.setenv("JEPA_RESULTS", str(results))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_experiment("study")
        return (results / "mlflow.db").read_bytes()


@pytest.fixture(autouse=True)
def results(tmp_path: Path, template: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of this test's own, and a lease that settles at once."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(template)
    monkeypatch.setenv("JEPA_RESULTS", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(lock, "_SETTLE_S", 0.05)
    return folder


class Clock:
    """The time as holding sees it: a sleep takes none. `during` happens in the first sleep of a second."""

    def __init__(self, during: Callable[[], object]) -> None:
        self.now = time.time()
        self.during = during
        self.localtime, self.strftime = time.localtime, time.strftime

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if seconds == lock._POLL_S:
            self.during()


def lease(**changes: object) -> None:
    """Leave a lease in the store, by default a fresh one of another machine."""
    now = time.time()
    other = LockOwner(host="elsewhere", pid=123, user="ann", since=now - 90, beat=now - 3, lock="/results/lock", id="x")
    client, experiment = open_experiment("study")
    client.set_experiment_tag(
        experiment.experiment_id, "sweep.holder", json.dumps(dataclasses.asdict(dataclasses.replace(other, **changes)))
    )


def tag() -> str:
    """The lease in the store."""
    return MlflowClient(store_uri()).get_experiment_by_name("study").tags.get("sweep.holder", "")


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def attempt(environment: dict[str, str], begin, outcomes, end) -> None:
    """One of several launches at once, in a process of its own."""
    os.environ.update(environment)
    begin.wait(timeout=120)
    try:
        with hold("study"):
            outcomes.put("held")
            end.wait()
    except ConfigError as error:
        outcomes.put(str(error))


def launched(*environments: dict[str, str]) -> tuple[list, list[str], Any]:
    """Launches at the same moment: their processes, what they say, and what ends those that hold the sweep."""
    begin, outcomes, end = PROCESSES.Barrier(len(environments)), PROCESSES.Queue(), PROCESSES.Event()
    launches = [
        PROCESSES.Process(target=attempt, args=(one, begin, outcomes, end), daemon=True) for one in environments
    ]
    for launch in launches:
        launch.start()
    return launches, sorted(outcomes.get(timeout=120) for _ in launches), end


def test_the_second_launch_says_who_holds_the_sweep():
    with hold("study"):
        holder = holder_of("study")
        assert holder is not None
        assert (holder.pid, holder.host) == (os.getpid(), os.uname().nodename)
        since = time.strftime("%H:%M", time.localtime(holder.since))  # with the date, should midnight come between
        with pytest.raises(ConfigError) as told, hold("study"):
            raise AssertionError("held twice")
        assert re.fullmatch(
            rf"sweep study is being run by {re.escape(f'{holder.user}@{holder.host}')} \(process {os.getpid()}\) "
            rf"since (\S+ )?{since}, last heard of \d+ s ago; watch it with --status, or stop it first",
            str(told.value),
        )
        with hold("another"):
            assert holder_of("another") is not None
    assert holder_of("study") is None
    assert tag() == ""
    with hold("study"):
        pass


@pytest.mark.parametrize("share_the_folder", [True, False])
def test_of_several_launches_at_once_one_holds_the_sweep(share_the_folder: bool, results: Path):
    uri, folders = store_uri(), [results, results if share_the_folder else results / "another"]
    launches, told, end = launched(*({"MLFLOW_TRACKING_URI": uri, "JEPA_RESULTS": str(folder)} for folder in folders))
    end.set()
    for launch in launches:
        launch.join(timeout=30)
    assert told[0] == "held"
    assert told[1].startswith("sweep study is being run by ")


def test_a_holder_that_is_killed_is_taken_over_at_once(results: Path):
    (launch,), told, _ = launched({"JEPA_RESULTS": str(results)})
    assert told == ["held"]
    holder = holder_of("study")
    assert holder is not None
    assert holder.pid == launch.pid
    launch.kill()  # SIGKILL
    launch.join()
    assert json.loads(tag())["pid"] == launch.pid  # it could not take it away
    assert holder_of("study") is None
    with hold("study"):
        assert json.loads(tag())["pid"] == os.getpid()


def test_a_lease_of_another_machine_is_respected_as_soon_as_it_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch):
    clock, told = Clock(during=lambda: lease(beat=clock.now)), []
    monkeypatch.setattr(lock, "time", clock)
    lease(beat=clock.now - 3)
    holder = holder_of("study")
    assert holder is not None
    assert holder.host == "elsewhere"
    began = clock.now
    with (
        pytest.raises(ConfigError, match=r"run by ann@elsewhere \(process 123\) since .+, last heard of \d+ s ago; "),
        hold("study", told.append),
    ):
        raise AssertionError("held twice")
    assert clock.now - began < 2
    (line,) = told
    assert line.startswith("sweep study is held by ann@elsewhere (process 123) since ")
    assert line.endswith(", last heard of 3 s ago; waiting 60 s for a sign of life")
    assert json.loads(tag())["host"] == "elsewhere"


def test_a_launch_on_another_machine_that_was_killed_is_waited_out_and_taken_over(monkeypatch: pytest.MonkeyPatch):
    """A job of Kubernetes or Slurm that begins again at once: it is asked once, and its no is final."""
    clock, told = Clock(during=lambda: None), []
    monkeypatch.setattr(lock, "time", clock)
    lease(beat=clock.now - 3)
    began = clock.now
    with hold("study", told.append):
        assert 57 <= clock.now - began < 60
        assert json.loads(tag())["host"] == os.uname().nodename
    assert len(told) == 1


def test_a_stale_lease_of_another_machine_is_not_respected():
    lease(beat=time.time() - 61)
    assert holder_of("study") is None
    with hold("study"):
        assert json.loads(tag())["host"] == os.uname().nodename


def test_a_lease_of_a_dead_process_of_this_machine_is_not_respected():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lease(host=os.uname().nodename, pid=dead.pid)
    assert holder_of("study") is None
    lease(host=os.uname().nodename, pid=os.getppid())
    assert holder_of("study") is not None


def test_a_holder_keeps_its_lease_fresh_and_survives_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_HEARTBEAT_S", 0.1)
    with hold("study"):
        first = json.loads(tag())["beat"]
        write, failures = MlflowClient.set_experiment_tag, []

        def away(*_: object) -> None:
            failures.append(1)
            raise OSError("away")

        monkeypatch.setattr(MlflowClient, "set_experiment_tag", away)
        until(lambda: len(failures) > 1)
        monkeypatch.setattr(MlflowClient, "set_experiment_tag", write)
        until(lambda: json.loads(tag())["beat"] > first)


def test_a_holder_that_was_taken_over_stops_with_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_HEARTBEAT_S", 0.1)
    closed, beats = [], []

    def run() -> None:
        with hold("study"):
            # a beat that had read before the other wrote would write over it
            monkeypatch.setattr(lock._Lease, "_write", lambda own: beats.append(own))
            try:
                until(lambda: len(beats) > 1)
                threading.Thread(target=lease, daemon=True).start()  # the interruption comes while this one waits
                time.sleep(60)
                raise AssertionError("it was not stopped")
            finally:
                closed.append("as after Ctrl-C")

    with pytest.raises(ConfigError, match=r"^sweep study was taken over by ann@elsewhere \(process 123\) since "):
        run()
    assert closed
    assert json.loads(tag())["host"] == "elsewhere"  # it stays the other's


def test_ctrl_c_stays_ctrl_c():
    with pytest.raises(KeyboardInterrupt), hold("study"):
        raise KeyboardInterrupt
    assert holder_of("study") is None


def test_asking_for_a_holder_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "none"))
    assert holder_of("study") is None
    assert not (tmp_path / "none").exists()


def test_a_results_folder_that_cannot_be_written_is_told_in_one_line(results: Path):
    (results / "locks").write_text("in the way")
    with (
        pytest.raises(ConfigError, match=r"^the results folder must be writable, but .+study\.lock is not"),
        hold("study"),
    ):
        raise AssertionError("held without a lock")
