"""Cache of decoded images: made once, mapped by all, nothing left by builders that fail.

Run: python -m pytest tests/unit/data/test_cache.py
"""

import errno
import fcntl
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jepa_train.data.cache import ArraySource, cached_array, one_at_a_time
from jepa_train.storage.paths import cache_dir

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))


def source(*, dies: BaseException | None = None) -> ArraySource:
    """IMAGES in parts of 4; raises the error, if there is one, after the first part."""
    facts = {"seen": 0}

    def parts() -> Iterator[np.ndarray]:
        for start in range(0, 10, 4):
            facts["seen"] += len(IMAGES[start : start + 4])
            yield IMAGES[start : start + 4]
            if dies:
                raise dies

    return ArraySource(rows=10, shape=(3, 4, 4), parts=parts(), facts=facts)


def left() -> list[str]:
    return [file.suffix for file in cache_dir().iterdir() if file.suffix != ".lock"]


def test_processes_share_one_read_only_map_of_the_file():
    pixels, facts = cached_array("a", source)
    assert np.array_equal(pixels, IMAGES)
    assert facts == {"seen": 10}, "as they are when the last part is made"
    file = cache_dir() / "a.npy"
    assert np.array_equal(np.load(file), IMAGES)  # numpy reads it too
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    assert [fields[1] for fields in maps] == ["r--s"]
    low, high = (int(end, 16) for end in maps[0][0].split("-"))
    assert low <= pixels.data_ptr() < high


def test_the_number_of_rows_may_show_only_while_they_are_made():
    parts = (np.full((10**part, 3, 2), part, np.uint8) for part in range(5))
    pixels, _ = cached_array("a", lambda: ArraySource(rows=1, shape=(3, 2), parts=parts, facts={}))
    assert pixels.shape == (11_111, 3, 2)
    assert pixels[[0, 10, 110, 1110, 1111], 2, 1].tolist() == [0, 1, 2, 3, 4]


def test_an_array_is_made_once():
    made = []
    for _ in range(2):
        cached_array("a", lambda: made.append(1) or source())
    assert made == [1]


def test_a_damaged_file_is_made_again(caplog):
    cached_array("a", source)
    (cache_dir() / "a.npy").write_bytes((cache_dir() / "a.npy").read_bytes()[:-20])
    assert np.array_equal(cached_array("a", source)[0], IMAGES)
    assert "a.npy cannot be read" in caplog.text


@pytest.mark.parametrize("number", [None, errno.ENOSPC, errno.EDQUOT])
def test_a_builder_that_fails_leaves_nothing(number):
    dies = ValueError("corrupt") if number is None else OSError(number, "full")
    room = r"^JEPA_CACHE must have room .*/cache' needs 0\.00 GB and has \d+\.\d\d GB free; free some, or "
    with pytest.raises(ValueError, match=room if number else "corrupt"):
        cached_array("a", lambda: source(dies=dies))
    assert left() == []


def test_one_at_a_time_excludes_others_and_logs_that_it_waits(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait()
        with one_at_a_time(tmp_path / "thing"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with one_at_a_time(tmp_path / "thing"):
        inside.set()
        end = time.monotonic() + 60
        while not caplog.messages and time.monotonic() < end:  # until it waits
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert caplog.messages == [f"waiting for another process, which is making {tmp_path / 'thing'}"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_disk_without_locks_serves_too(number, monkeypatch, caplog):
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(fcntl, "flock", refuse)
    if number == errno.EIO:
        with pytest.raises(OSError, match="no"):
            cached_array("a", source)
        return
    assert np.array_equal(cached_array("a", source)[0], IMAGES)
    assert "has no file locks" in caplog.text
    assert left() == [".npy"]
