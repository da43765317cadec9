"""Lock of a sweep: refusal of a living owner, take-over of a dead one, and of a living one with --take-over.

Run: python -m pytest tests/integration/store/test_lock.py
"""

import dataclasses
import errno
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stores import until

from jepa_train.base.errors import ConfigError
from sweeps.engine.store import lock, mlflow_client
from sweeps.engine.store.experiment import open_experiment
from sweeps.engine.store.lock import LockOwner, hold, holder_of
from sweeps.engine.store.reader import store_uri

pytestmark = pytest.mark.usefixtures("results")


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that this process would have sent itself; a heartbeat every 0.1 s."""
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
    monkeypatch.setattr(lock, "_HEARTBEAT_S", 0.1)
    monkeypatch.setattr(lock, "_FIRST_S", 0.1)
    monkeypatch.setattr(lock, "_STOP_S", 0.5)
    monkeypatch.setattr(lock, "_POLL_S", 0.02)
    return sent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock for the lock that goes on only while it waits; `between` is called at each of these waits."""
    made = SimpleNamespace(now=time.time(), between=lambda: None)

    def sleep(seconds: float) -> None:
        made.now += seconds
        made.between()

    taken = {"time": lambda: made.now, "sleep": sleep, "strftime": time.strftime, "localtime": time.localtime}
    monkeypatch.setattr(lock, "time", SimpleNamespace(**taken))
    monkeypatch.setattr(lock, "_POLL_S", 1.0)
    return made


def write_owner(**changes: object) -> None:
    """Write the tag of an owner, by default of a living one on another machine."""
    now = time.time()
    other = LockOwner(host="elsewhere", pid=123, user="ann", since=now - 90, beat=now - 3, lock="/results/lock", id="x")
    client, experiment = open_experiment("study")
    text = json.dumps(dataclasses.asdict(dataclasses.replace(other, **changes)))
    client.set_experiment_tag(experiment.experiment_id, "sweep.holder", text)


def read_owner() -> dict:
    """The owner in the store, {} if there is none."""
    return json.loads(MlflowClient(store_uri()).get_experiment_by_name("study").tags.get("sweep.holder", "{}"))


def test_a_second_launch_is_refused_with_the_owner_and_the_remedy():
    with hold("study"):
        owner = holder_of("study")
        assert (owner.pid, owner.host) == (os.getpid(), os.uname().nodename)
        with pytest.raises(ConfigError) as error, hold("study"):
            raise AssertionError("held twice")
        assert str(error.value).startswith(
            f"sweep study is being run by {owner.user}@{owner.host} (process {owner.pid})"
        )
        assert str(error.value).endswith("watch it with --status, or end it with --take-over")
        with hold("another"):
            assert holder_of("another") is not None
    assert holder_of("study") is None
    assert read_owner() == {}


def test_a_dead_launch_of_this_machine_is_taken_over_at_once(results: Path, clock: SimpleNamespace):
    """Its heartbeat is recent, but the kernel has freed its lock file."""
    write_owner(beat=clock.now, host=os.uname().nodename, lock=str(results / "locks/study.lock"))
    began = clock.now
    with hold("study"):
        assert read_owner()["pid"] == os.getpid()
    assert clock.now == began


def test_a_heartbeat_that_waited_for_a_busy_store_is_not_old(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    write, busy = MlflowClient.set_experiment_tag, [MlflowException("timed out")]

    def wait_once(*words: object) -> None:
        if busy:
            clock.now += 61
            raise busy.pop()
        write(*words)

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", wait_once)
    monkeypatch.setattr(mlflow_client, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None))
    with hold("study"):
        assert read_owner()["beat"] == clock.now


def test_a_dead_launch_of_another_machine_is_taken_over_when_its_heartbeat_is_a_minute_old(clock: SimpleNamespace):
    """As a batch job does that was killed and begins again elsewhere: unattended."""
    notes: list[str] = []
    beat = clock.now - 57
    write_owner(beat=beat)
    with hold("study", notes.append):
        assert clock.now == pytest.approx(beat + 60)
        assert read_owner()["host"] == os.uname().nodename
    assert [note.partition(";")[0] for note in notes] == ["waiting 60 s for a sign of life"]
    write_owner(beat=clock.now - 61)
    assert holder_of("study") is None
    with hold("study", notes.append):
        assert len(notes) == 1


def test_a_launch_of_another_machine_is_refused_when_it_gives_a_sign_of_life(clock: SimpleNamespace):
    write_owner(beat=clock.now - 3)
    clock.between = lambda: write_owner(beat=clock.now)
    with pytest.raises(ConfigError, match=r"run by ann@elsewhere \(process 123\) since "), hold("study"):
        raise AssertionError("held twice")
    assert read_owner()["host"] == "elsewhere"


def test_a_launch_that_was_taken_over_ends_and_leaves_the_tag(ends: list[int]):
    notes: list[str] = []
    with hold("study", notes.append):
        until(lambda: ends or write_owner())  # again and again, as take_over: a heartbeat may write between
    assert ends == [signal.SIGTERM]
    assert notes[0].startswith("sweep study was taken over by ann@elsewhere (process 123)")
    assert read_owner()["host"] == "elsewhere"


def test_take_over_ends_a_living_launch_of_another_machine():
    write_owner()
    notes: list[str] = []
    with hold("study", notes.append, take_over=True):
        assert read_owner()["pid"] == os.getpid()
    assert notes[0].startswith("taking sweep study over, in 0 s, from ann@elsewhere (process 123)")


def test_of_two_launches_at_once_one_ends(results: Path, ends: list[int], monkeypatch: pytest.MonkeyPatch):
    """They share the store alone; each has read that nobody runs the sweep before the other wrote."""
    together = threading.Barrier(2, timeout=60)

    def acquire(lease: lock._Lease) -> None:
        assert lease.owner() is None
        together.wait()
        lease._write()
        together.wait()
        lease._thread.start()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri())
    monkeypatch.setattr(lock._Lease, "acquire", acquire)
    folders = iter([results / "a", results / "b"])
    monkeypatch.setattr(lock, "results_dir", lambda: next(folders))
    notes: list[str] = []

    def launch() -> None:
        with hold("study", notes.append):
            until(lambda: ends)
            time.sleep(0.5)

    threads = [threading.Thread(target=launch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [signal.SIGTERM]
    assert len(notes) == 1


def test_a_heartbeat_survives_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch):
    with hold("study"):
        first = read_owner()["beat"]
        failures = []

        def away(*_: object) -> None:
            failures.append(1)
            raise OSError("away")

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "set_experiment_tag", away)
            until(lambda: len(failures) > 1)
        until(lambda: read_owner()["beat"] > first)


def test_a_take_over_that_does_not_get_the_file_lock_leaves_no_tag(results: Path):
    (results / "locks").mkdir()
    write_owner()
    held_error = pytest.raises(ConfigError, match="is being run by ann@elsewhere")
    with FileLock(results / "locks/study.lock"), held_error, hold("study", take_over=True):
        raise AssertionError("held twice")
    assert read_owner() == {}


def test_sigterm_raises_in_the_block_and_its_handler_is_restored():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), hold("study"):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_owner() == {}


@pytest.mark.parametrize(
    ("number", "rule"), [(errno.ENOLCK, "on a file system that has locks"), (errno.EACCES, "writable")]
)
def test_a_results_folder_without_locks_is_one_line(number: int, rule: str, monkeypatch: pytest.MonkeyPatch):
    def acquire(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.FileLock, "acquire", acquire)
    error = rf"^the results folder must be {rule}, but .+study\.lock is not \({os.strerror(number)}\)"
    with pytest.raises(ConfigError, match=error), hold("study"):
        raise AssertionError("held without a lock")
