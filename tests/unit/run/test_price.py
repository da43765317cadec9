"""Price of a plan and budget of a launch, by hand-made stores and clocks.

Run: python -m pytest tests/unit/run/test_price.py
"""

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from simulated_sweep import entry_of, plan_of

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.presets import DIGITS
from jepa_train.methods import LeJEPA
from jepa_train.train.trainer import Trainer
from sweeps.engine.cluster.resources import Request
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run import price as price_module
from sweeps.engine.run.budget import Budget
from sweeps.engine.run.estimate import Estimate, Price, finished_estimates, kind_of, kind_of_config
from sweeps.engine.run.price import failure, rate, seconds_per_epoch
from sweeps.engine.spec.cells import Cell
from sweeps.engine.spec.objective import Asha
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry, StoredSweep

BASE = dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=10, global_batch=256)
CPU = Request(workers=1, cpus=1, gpus=0, device="X")
GPUS = Request(workers=2, cpus=4, gpus=2, device="H100")
SIX_MINUTES = {kind_of_config(BASE): Estimate(36.0, "measured")}  # per cell of 10 epochs


def planned(**fields: Any) -> Plan:
    return plan_of(Sweep(**({"name": "study", "purpose": "", "base": BASE} | fields)))


def entry(config: TrainConfig, request: Request = CPU, **fields: Any) -> Entry:
    return entry_of(Cell(config=config, label=""), **({"device_seconds": 100.0, "resources": str(request)} | fields))


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({"seed": 3, "epochs": 99, "optim": dataclasses.replace(BASE.optim, lr=0.1)}, True),
        ({"method": LeJEPA(num_slices=16, lamb=0.5)}, True),
        ({"method": LeJEPA(num_slices=17)}, False),
        ({"global_batch": 128}, False),
        ({"views": dataclasses.replace(BASE.views, blur=0.5)}, False),
    ],
)
def test_kinds_differ_in_fields_that_decide_the_speed(change: dict[str, Any], alike: bool) -> None:
    other = dataclasses.replace(BASE, **change)
    assert (kind_of_config(BASE) == kind_of_config(other)) == alike
    assert kind_of(entry(other).params) == kind_of_config(other)


def test_the_price_is_the_median_of_finished_cells_on_these_resources() -> None:
    seconds = {1: 4 * 3600.0, 2: 4 * 7200.0, 3: 4 * 7200.0}  # of four GPUs
    found = [entry(dataclasses.replace(BASE, seed=seed), GPUS, device_seconds=each) for seed, each in seconds.items()]
    others = [entry(BASE), entry(BASE, GPUS, status="diverged"), entry(BASE, GPUS, device_seconds=0.0)]
    estimates = finished_estimates([*found, *others], GPUS)
    assert estimates == {kind_of_config(BASE): Estimate(720.0, "as in 3 finished cells")}
    assert Price(planned(seeds=(0, 1)), GPUS, estimates).total == pytest.approx(2 * 4 * 2)


def test_hours_count_the_epochs_that_are_left_and_an_unknown_kind_is_as_slow_as_the_slowest() -> None:
    plan = planned(grid={"global_batch": [256, 128]}, references=({"epochs": 0},))
    reference, first, second = plan.fixed
    plan.entries[first.key] = entry(first.config, status="interrupted", epoch=7)
    price = Price(plan, CPU, SIX_MINUTES, at_once=4)
    assert [price.hours(cell) for cell in (reference, first, second)] == pytest.approx([0, 0.03, 0.1])
    assert price.lines() == [
        "price of 3 cells, 3 at once, each on 1 x (1 CPU, X), measured",
        "  in all 0.13 CPU-worker-hours; about 6 min by the clock",
    ]


def test_cells_that_searches_choose_later_cost_as_much_as_the_base_at_their_grid_point() -> None:
    dear = kind_of_config(dataclasses.replace(BASE, method=LeJEPA(num_slices=64)))
    plan = planned(
        grid={"method.num_slices": [16, 64]},
        space={"method.lamb": FloatDistribution(0.01, 0.1)},
        trials=2,
        seeds=(0, 1),
        early_stopping=Asha(first=1),
    )
    price = Price(plan, CPU, SIX_MINUTES | {dear: Estimate(72.0, "measured")}, at_once=2, rate=2.5)
    assert price.each == pytest.approx([0.1] * 3 + [0.2] * 3)  # two points and the winner's other seed
    assert price.lines()[1] == (
        "  in all 0.90 CPU-worker-hours at most, for early stopping ends some, 2.25 dollars; about 27 min by the clock"
    )


TYPES = {"big": {"resources": {"CPU": 96, "GPU": 8}}, "small": {"resources": {"CPU": 8, "GPU": 1}}}


@pytest.mark.parametrize(
    ("prices", "request_", "dollars"),
    [
        ({"big": 32.0, "small": 3.0}, GPUS, 4.0),  # 32 / 8 per GPU, dearer than 3 / 1
        ({}, GPUS, None),
        ({"big": 32.0}, CPU, None),  # a cluster for GPUs
    ],
)
def test_gpus_share_a_nodes_price(prices: dict[str, float], request_: Request, dollars: float | None) -> None:
    assert rate({"available_node_types": TYPES, "metadata": {"prices": prices}}, request_) == dollars
    message = r"^metadata\.prices in the cluster's file must give .+ did you mean 'big'\?$"
    with pytest.raises(ConfigError, match=message):
        rate({"available_node_types": TYPES, "metadata": {"prices": {"bigg": 3.0}}}, GPUS)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GetTimeoutError("some object(s) not ready"), "it took longer than 120 s"),
        (RayTaskError("f", "trace\nback", ConfigError("data.path holds no images\n")), "data.path holds no images"),
        (RayTaskError("f", "trace\nback", KeyError("views")), "KeyError: 'views'"),
    ],
)
def test_the_reason_of_a_failed_measurement_is_one_line(error: RayError, reason: str) -> None:
    assert failure(error) == reason


@pytest.mark.parametrize("workers", [1, 2])
def test_a_measurement_counts_steps_and_the_evaluation_of_val(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that steps (10 ms per image) and evaluations (1 ms per image) move: 1222 and 216 images."""
    clock = SimpleNamespace(now=0.0)

    def move(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(Trainer, "train_step", lambda trainer: move(trainer.config.global_batch * 0.01))
    monkeypatch.setattr(price_module, "evaluate", lambda _, images, *__, **___: move(len(images) * 0.001))
    monkeypatch.setattr(price_module, "Timer", partial(price_module.Timer, timer=lambda: clock.now))
    expected = (4 * 256 * 0.01 + 216 * 0.001) / workers
    assert seconds_per_epoch(dataclasses.replace(BASE, epochs=0), workers=workers) == pytest.approx(expected)


def budgeted(limit: float, used: float = 0.0, estimates: dict[str, Estimate] | None = None) -> tuple[Budget, Any, Any]:
    """A budget for six cells of 0.1 hours, its cells, and its clock in hours.

    Args:
        used: hours of earlier launches, half of them by runs that the sweep no longer asks for.
    """
    half = entry(BASE, GPUS, device_seconds=1800 * used)
    plan = dataclasses.replace(planned(seeds=(0, 1, 2, 3, 4, 5)), stored=StoredSweep(cells=(half,), further=(half,)))
    clock, plan.entries["x"] = SimpleNamespace(hours=0.0), half
    price = Price(plan, CPU, dict(SIX_MINUTES) if estimates is None else estimates)
    return Budget(limit, price, now=lambda: clock.hours * 3600), plan.fixed, clock


def test_a_budget_counts_used_hours_and_running_cells_by_the_clock_where_they_exceed_their_price() -> None:
    budget, cells, clock = budgeted(0.85, used=0.3)
    assert [budget.admits(cell) for cell in cells] == [True] * 5 + [False]
    for cell in cells[:4]:
        budget.started(cell)
        budget.ended(cell, finished=False)  # at once: it diverged
    budget.started(cells[4])
    clock.hours = 0.4
    assert budget.left == pytest.approx(0.15)
    assert budget.admits(cells[5])  # 0.3 + 0.4 + 0.1
    budget.started(cells[4])  # its trial was lost and came back: its time goes on
    clock.hours = 0.5
    assert budget.left == pytest.approx(0.05)


def test_without_a_price_one_cell_runs_at_a_time_until_one_has_finished() -> None:
    budget, cells, clock = budgeted(0.55, estimates={})
    assert not budget.awaits_price
    for finished in (False, True):  # a cell that diverges sets no price
        cell, cells = cells[0], cells[1:]
        assert budget.admits(cell)
        assert budget.awaits_price
        budget.started(cell)
        clock.hours += 0.15
        budget.ended(cell, finished=finished)
        assert not budget.awaits_price
    assert [budget.admits(cell) for cell in cells[:2]] == [True, False]  # 0.3 + 0.15


def test_a_budget_for_not_even_one_cell_is_refused_with_the_arithmetic_and_its_remedy_works() -> None:
    with pytest.raises(ConfigError) as caught:
        budgeted(0.35, used=0.3)
    assert str(caught.value) == (
        "--max-gpu-hours must allow one more cell, got 0.35 CPU-worker-hours: study has used 0.3, "
        "and its cheapest cell takes 0.1; raise it to 0.404"
    )
    assert budgeted(0.404, used=0.3)
