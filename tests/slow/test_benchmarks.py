"""Benchmarks: statistics of samples, and equal work on both sides of each comparison. No speed is asserted.

tests/slow/test_readme.py runs every benchmark.

Run: python -m pytest tests/slow/test_benchmarks.py
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor

from benchmarks import __main__ as command_line
from benchmarks import guide, image_folder, on_gpu
from benchmarks.comparison import Comparison
from benchmarks.gpu_checks import Check
from benchmarks.gpu_parts import Part
from benchmarks.gradients import check_agreement
from benchmarks.memory import peak_extra
from benchmarks.report import as_markdown
from benchmarks.sigreg_table import PaperTiming
from benchmarks.timing import QUICK, Setting, interleaved
from jepa_train.base.seeds import generator

CPU = torch.device("cpu")
ROW = Comparison(
    what="loss", against="plain", shape="N=2", reference=(8.0, 3.0, 4.0), ours=(2.0, 1.0, 4.0), target=2.0, items=10
)
TIMING = PaperTiming(num=1, num_slices=2, num_knots=3, ours=(0.001, 0.003), paper_mean_ms=0.5, paper_std_ms=0.25)


def test_samples_alternate_and_leave_out_the_warm_up():
    """Time passes only when a call says so."""
    log: list[str] = []
    seconds = {"a": iter((100.0, 50.0, 8.0, 3.0, 4.0)), "b": iter((200.0, 70.0, 2.0, 1.0, 4.0))}
    passed = [0.0]

    def call(name: str) -> None:
        log.append(name)
        passed[0] += next(seconds[name])

    times = interleaved([partial(call, name) for name in seconds], QUICK, CPU, clock=lambda: passed[0])
    assert times == [(8.0, 3.0, 4.0), (2.0, 1.0, 4.0)]
    assert "".join(log) == "abababab" + "ab"


def test_the_ratio_is_of_the_medians_and_the_quartiles_are_of_neighbours():
    assert ROW.ratio == 4.0 / 2.0
    assert ROW.quartiles == (2.0, 3.5)  # of 4, 3, 1
    cost = replace(ROW, is_cost=True, target=0.5)
    assert cost.ratio == 2.0 / 4.0
    assert cost.quartiles == pytest.approx((7 / 24, 2 / 3))  # of 1/4, 1/3, 1
    assert (ROW.met, replace(ROW, target=2.1).met) == (True, False), "a speed-up must reach its target"
    assert (cost.met, replace(cost, target=0.4).met) == (True, False), "a cost must not exceed it"


def test_rows_of_one_type_make_one_table_and_the_machine_stands_below():
    text = as_markdown([ROW, replace(ROW, memory=(2_000_000, 1000), items=0), TIMING], {"torch": "2", "CPU": "a"})
    first, note, second, _, last = text.strip().split("\n\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in first.splitlines()]
    assert cells[0] == list(Comparison.HEADER)
    wanted = "loss, plain, N=2, 4 s (2/s), 2 s (5/s), 2.00, 2.00 to 3.50, 3, , , at least 2, yes"
    assert cells[2] == wanted.split(", ")
    assert cells[3][3:5] + cells[3][8:10] == ["4 s", "2 s", "2 MB", "1 kB"]
    assert len({len(line) for line in first.splitlines()}) == 1, "lines up in a terminal"
    assert note == Comparison.NOTE
    assert " ".join(second.splitlines()[2].split()) == "| 1 | 2 | 3 | 2.000 | 1.414 | 0.500 | 0.250 |"
    assert last == "torch 2, CPU a"


def test_different_results_are_not_compared():
    z = torch.randn(5, 2, generator=generator("z"))

    def square(x: Tensor) -> Tensor:
        return x.square().sum()

    check_agreement(square, square, z)
    with pytest.raises(AssertionError, match="value"):
        check_agreement(lambda x: 1.001 * square(x), square, z)
    with pytest.raises(AssertionError, match="gradient"):
        check_agreement(lambda x: (x * x.detach()).sum(), square, z)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process's peak is read from /proc")
def test_the_peak_counts_freed_memory_and_not_earlier_allocations():
    kept = torch.ones(1 << 24)  # 64 MB
    extra = peak_extra(lambda: kept[: 1 << 23] + 1, CPU)
    assert extra == pytest.approx(4 << 23, rel=0.1)


def test_a_new_cache_is_cold(tmp_path: Path):
    before = dict(os.environ)
    image_folder.write_folder(tmp_path / "images", num=20, side=16)
    assert image_folder.decode_every_file(tmp_path / "images", 16, CPU) == 20
    for name in ("first", "second"):
        with image_folder.cache_in(tmp_path / name):
            assert image_folder.load_and_fetch(tmp_path / "images", 16, CPU) == 20
        sizes = [file.stat().st_size for file in (tmp_path / name).rglob("*")]
        assert max(sizes) >= 20 * 3 * 16 * 16, f"the {name} decoded nothing"
    assert dict(os.environ) == before


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Folder of the results of two stand-in benchmarks."""

    def one_row(setting: Setting) -> Iterator[Comparison]:
        yield replace(ROW, shape="quick" if setting.quick else "full")

    monkeypatch.setattr(command_line, "BENCHMARKS", {"sigreg": one_row, "image_folder": one_row})
    monkeypatch.setattr(command_line, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_only_a_full_run_of_all_is_recorded(recorded: Path, capsys: pytest.CaptureFixture[str]):
    for words in (["--quick"], ["sigreg"]):
        assert command_line.main(words) == 0
    capsys.readouterr()
    assert command_line.main(["sigerg"]) == 2
    assert capsys.readouterr().err == "error: NAME must be a benchmark, got 'sigerg'; did you mean 'sigreg'?\n"
    assert not recorded.exists()
    assert command_line.main([]) == 0
    (text,) = recorded.glob("*.md")
    assert text.read_text() == capsys.readouterr().out
    assert text.read_text().count("full") == 2
    assert json.loads(text.with_suffix(".json").read_text())["benchmarks"].keys() == {"sigreg", "image_folder"}


def test_an_arm_is_compared_with_the_guides_runs_of_its_seeds():
    accuracies = {"guide": {0: 30.0, 1: 34.0, 2: 35.0, 3: 31.0}, "preset": {2: 35.5, 1: 33.0, 0: 30.5}}
    runs = [
        guide.Run(arm=arm, seed=seed, top1=top1, loss=2.0, images_per_s=100.0)
        for arm, seeds in accuracies.items()
        for seed, top1 in seeds.items()
    ]
    alone, preset = guide.table(runs[::-1])
    assert [arm.cells()[:4] for arm in (alone, preset)] == [
        ("guide", "4", "32.5 ± 2.4", ""),
        ("preset", "3", "33.0 ± 2.5", "+0.00"),
    ]
    test = stats.ttest_rel([30.5, 33.0, 35.5], [30.0, 34.0, 35.0])
    assert preset.interval == pytest.approx(tuple(test.confidence_interval()))


def _row_then_error(setting: Setting) -> Iterator[Comparison]:
    yield replace(ROW, shape=str(setting.quick))
    raise ValueError("no such kernel")


def _row_then_hang(_setting: Setting) -> Iterator[Comparison]:
    yield ROW
    subprocess.run(["sleep", "600"], check=True)


def _die(_setting: Setting) -> Iterator[Comparison]:
    yield ROW
    os._exit(7)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (_row_then_error, r"(?s)Traceback .*ValueError: no such kernel"),
        (_row_then_hang, "not finished after 2 s"),
        (_die, "its process ended with code 7"),
    ],
    ids=["fails", "hangs", "dies"],
)
def test_a_part_fails_alone_and_its_rows_count(part: Callable[[Setting], Iterator[Comparison]], reason: str):
    rows = on_gpu.rows_of(Part(run=part, seconds=2.0), Setting(device=CPU, quick=True), 2.0)
    row, text, *others = list(rows)
    assert isinstance(row, Comparison)
    assert isinstance(text, str)
    assert re.match(reason, text)
    assert others == []


def test_a_check_on_a_value_that_is_not_a_number_is_not_met():
    check = Check(what="kernel", against="torch", shape="", error=0.5, bound=0.5)
    assert [each.met for each in (check, replace(check, error=0.6), replace(check, error=float("nan")))] == [
        True,
        False,
        False,
    ]
