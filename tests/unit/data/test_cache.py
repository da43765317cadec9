"""The cache: one file, made once, shared as one map; killed builders, full disks, and what those who wait are told."""

import errno
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jepa_train.data.cache import Making, one_at_a_time, part_of, stored
from jepa_train.storage.paths import cache_dir

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))


def making(*, dies: BaseException | None = None) -> Making:
    """IMAGES in parts of 4; dies after the first part, if told to."""
    facts = {"seen": 0}

    def parts() -> Iterator[np.ndarray]:
        for start in range(0, 10, 4):
            facts["seen"] += len(IMAGES[start : start + 4])
            yield IMAGES[start : start + 4]
            if dies:
                raise dies

    return Making(shape=IMAGES.shape, parts=parts(), facts=facts)


def left() -> list[str]:
    return [file.suffix for file in cache_dir().iterdir() if file.suffix != ".lock"]


def test_what_is_stored_comes_back_with_its_facts():
    for _ in range(2):
        found = stored("a", making)
        assert np.array_equal(found.pixels, IMAGES)
        assert found.facts == {"seen": 10}  # as they are when the last part is made
    assert np.array_equal(np.load(cache_dir() / "a.npy"), IMAGES)  # numpy reads it too


def test_an_array_is_made_once_and_anew_only_when_it_will_not_do():
    made = []
    for wanted, count in ((10, 1), (10, 1), (11, 2)):
        stored("a", lambda: made.append(1) or making(), current=lambda facts, wanted=wanted: facts["seen"] == wanted)
        assert len(made) == count


def test_processes_share_one_map_of_the_file():
    """/proc says what is mapped: the file, read-only and shared, with no copy that the system would have to promise."""
    pixels = stored("a", making).pixels
    file = cache_dir() / "a.npy"
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    assert [fields[1] for fields in maps] == ["r--s"]
    low, high = (int(end, 16) for end in maps[0][0].split("-"))
    assert low <= pixels.data_ptr() < high


def test_a_killed_builder_leaves_nothing_that_counts():
    """The next one builds as if nothing had been there, and the dead one's part is gone."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from jepa_train.data.cache import Making, stored
from test_cache import IMAGES
def parts():
    yield IMAGES[:4]
    os.kill(os.getpid(), signal.SIGKILL)
stored("a", lambda: Making(shape=IMAGES.shape, parts=parts(), facts={{}}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert left() == [".part"]
    assert np.array_equal(stored("a", making).pixels, IMAGES)
    assert left() == [".npy"]


def test_a_builder_that_fails_leaves_nothing():
    with pytest.raises(ValueError, match="corrupt"):
        stored("a", lambda: making(dies=ValueError("corrupt")))
    assert left() == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(number):
    expected = r"^JEPA_RESULTS must have room .*/cache' needs 0\.00 GB and has \d+\.\d\d GB free; free some, or "
    with pytest.raises(ValueError, match=expected):
        stored("a", lambda: making(dies=OSError(number, "full")))
    assert left() == []


def test_a_disk_that_is_full_is_seen_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 3 * 4 * 4 - 1))
    made = making()
    with pytest.raises(ValueError, match=r"^JEPA_RESULTS must have room"):
        stored("a", lambda: made)
    assert made.facts == {"seen": 0}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 3 * 4 * 4))
    stored("a", making)


def test_without_a_terminal_lines_in_the_log_say_how_far_it_is(capsys, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("jepa_train.data.cache._INTERVAL", 0.0)
    stored("a", making)
    assert [line for line in caplog.messages if line.startswith("decoded")] == [
        f"decoded {count} of 10 images" for count in (4, 8, 10)
    ]
    assert capsys.readouterr() == ("", "")


def test_one_at_a_time_is_exclusive_and_says_who_waits(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait()
        with one_at_a_time(tmp_path / "thing.lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with one_at_a_time(tmp_path / "thing.lock"):
        inside.set()
        end = time.monotonic() + 60
        while not caplog.messages and time.monotonic() < end:  # until it waits
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert caplog.messages == [f"waiting for another process, which is making {tmp_path / 'thing'}"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_without_locks_on_the_disk_each_makes_its_own(number, monkeypatch, caplog):
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            stored("a", making)
        return
    assert stored("a", making).pixels.shape == (10, 3, 4, 4)
    assert f"cannot be locked ({os.strerror(number)}): each process makes its own" in caplog.text


def test_what_a_killed_process_left_is_removed(monkeypatch):
    target = cache_dir() / "a.npy"
    target.parent.mkdir(parents=True, exist_ok=True)
    with monkeypatch.context() as killed:
        killed.setattr(os, "getpid", lambda: 1)
        mine, folder = part_of(target), part_of(target.with_name("a"))
        other = part_of(target.with_name("ab.npy"))
    mine.touch()
    other.touch()
    with one_at_a_time(target.with_suffix(".lock")):
        assert mine == folder
        assert not mine.exists()
        assert other.exists()
    assert part_of(target) != mine, "of two processes without a lock each has its own"
