"""Benchmarks: statistics of samples, and equal work on both sides of each comparison. No speed is asserted.

Run: python -m pytest tests/slow/test_benchmarks.py
"""

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch
from torch import Tensor

from benchmarks import __main__ as command_line
from benchmarks import head, image_folder, machine, plan
from benchmarks.comparison import Comparison
from benchmarks.gradients import check_agreement, forward_backward
from benchmarks.memory import peak_extra
from benchmarks.rdmreg import plain_sliced_wasserstein, three_products
from benchmarks.report import as_markdown
from benchmarks.sigreg import plain_sigreg
from benchmarks.sigreg_table import PaperTiming
from benchmarks.timing import QUICK, Setting, interleaved
from jepa_train.base.seeds import generator
from jepa_train.losses.sliced_wasserstein import sliced_wasserstein
from jepa_train.losses.slices import unit_slices
from jepa_train.methods.lejepa import sigreg

CPU = torch.device("cpu")
ROW = Comparison(
    what="loss", against="plain", shape="N=2", reference=(8.0, 3.0, 4.0), ours=(2.0, 1.0, 4.0), target=2.0, items=10
)
TIMING = PaperTiming(num=1, num_slices=2, num_knots=3, ours=(0.001, 0.003), paper_mean_ms=0.5, paper_std_ms=0.25)


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def call(self, name: str, *durations: float):
        """A call that takes these seconds in turn, the last one for ever."""
        times = itertools.chain(durations, itertools.repeat(durations[-1]))

        def call() -> None:
            self.log.append(name)
            self.now += next(times)

        return call


def test_samples_alternate_and_leave_out_the_warm_up():
    clock = Clock()
    calls = clock.call("a", 100.0, 50.0, 8.0, 3.0, 4.0), clock.call("b", 200.0, 70.0, 2.0, 1.0, 4.0)
    times = interleaved(calls, QUICK, CPU, clock=lambda: clock.now)
    assert times == [(8.0, 3.0, 4.0), (2.0, 1.0, 4.0)]
    assert "".join(clock.log) == "abababab" + "ab"


def test_the_ratio_is_of_the_medians_and_the_quartiles_are_of_neighbours():
    assert ROW.ratio == 4.0 / 2.0
    assert ROW.quartiles == (2.0, 3.5)  # of 4, 3, 1
    cost = replace(ROW, is_cost=True)
    assert cost.ratio == 2.0 / 4.0
    assert cost.quartiles == pytest.approx((7 / 24, 2 / 3))  # of 1/4, 1/3, 1


@pytest.mark.parametrize(
    ("is_cost", "target", "met"),
    [(False, 2.0, True), (False, 2.1, False), (True, 0.5, True), (True, 0.4, False), (False, None, None)],
)
def test_a_speed_up_must_reach_its_target_and_a_cost_must_not_exceed_it(is_cost: bool, target: float, met: bool):
    assert replace(ROW, is_cost=is_cost, target=target).met is met


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


def test_sigregs_plain_form_is_ours_in_value_and_gradient():
    z = torch.randn(3, 20, 6, generator=generator("z"), dtype=torch.float64)
    slices = unit_slices(6, 15, seed=0).double()
    for num_knots in (16, 17):
        plain = forward_backward(lambda x, t=num_knots: plain_sigreg(x, slices, num_knots=t, t_max=5.0), z)
        ours = forward_backward(lambda x, t=num_knots: sigreg(x, slices, num_knots=t, t_max=5.0), z)
        torch.testing.assert_close(plain, ours, rtol=1e-9, atol=1e-12)


def test_rdmregs_plain_form_is_ours_in_value_and_gradient():
    z, target = (torch.randn(20, 6, generator=generator(name), dtype=torch.float64) for name in ("z", "target"))
    slices = unit_slices(6, 15, seed=0).double()
    plain = forward_backward(lambda x: plain_sliced_wasserstein(x, target, slices), z)
    torch.testing.assert_close(plain, forward_backward(lambda x: sliced_wasserstein(x, target, slices), z))
    wanted = z @ slices, target @ slices, z @ slices @ slices.mT
    torch.testing.assert_close(three_products(z, target, slices), wanted)


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


@pytest.mark.parametrize("name", command_line.BENCHMARKS)
def test_every_benchmark_runs_and_its_numbers_agree(name: str):
    rows = list(command_line.BENCHMARKS[name](Setting(device=machine.chosen_device(), quick=True)))
    assert len({row.cells() for row in rows}) == len(rows) > 0
    for row in rows:
        assert min(row.ours) > 0
        if isinstance(row, Comparison):
            sides = median(row.ours), median(row.reference)
            assert row.ratio == (sides[0] / sides[1] if row.is_cost else sides[1] / sides[0])
            assert len(row.ours) == len(row.reference) == 3
            assert row.met is None, "a look at tiny shapes meets no target and misses none"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Folder of the results of two stand-in benchmarks."""

    def one_row(setting: Setting) -> Iterator[Comparison]:
        yield replace(ROW, shape="quick" if setting.quick else "full")

    monkeypatch.setattr(command_line, "BENCHMARKS", {"sigreg": one_row, "image_folder": one_row})
    monkeypatch.setattr(command_line, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_a_run_of_all_is_printed_and_recorded(recorded: Path, capsys: pytest.CaptureFixture[str]):
    assert command_line.main([]) == 0
    printed = capsys.readouterr().out
    (text,) = recorded.glob("*.md")
    assert text.stem == machine.slug(machine.chosen_device())
    assert text.read_text() == printed
    assert printed.count("full") == 2
    assert json.loads(text.with_suffix(".json").read_text())["benchmarks"].keys() == {"sigreg", "image_folder"}


def test_a_quick_run_and_a_selection_are_not_recorded(recorded: Path, capsys: pytest.CaptureFixture[str]):
    for words in (["--quick"], ["sigreg"]):
        assert command_line.main(words) == 0
    capsys.readouterr()
    assert command_line.main(["sigerg"]) == 2
    assert capsys.readouterr().err == "error: NAME must be a benchmark, got 'sigerg'; did you mean 'sigreg'?\n"
    assert not recorded.exists()


def test_planning_a_filled_store_finds_every_cell_done(capsys: pytest.CaptureFixture[str]):
    assert plan.main(["--quick"]) == 0
    assert "81 cells, all in the store" in capsys.readouterr().out


def test_memory_of_a_head_by_kind_of_process(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert head.main(["--quick"]) == 0
    table = capsys.readouterr().out
    for kind, at in (("driver", "1 once"), ("Ray: raylet", "1 once"), ("Ray: Mailbox", "1 with 1 trials at once")):
        assert re.search(rf"\| {kind} +\| {at} ", table), table
