"""What a plan costs: from the store, from a cache, by measuring; hours, money and budget by hand."""

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_key, flatten
from jepa_train.config.presets import DIGITS
from jepa_train.methods import LeJEPA
from sweeps.engine.cluster import nodes
from sweeps.engine.cluster.resources import Request
from sweeps.engine.cluster.session import ray_session
from sweeps.engine.plan.cell_state import Rules
from sweeps.engine.plan.plan import Plan, laid_out
from sweeps.engine.run import calibration
from sweeps.engine.run import price as price_module
from sweeps.engine.run.budget import Budget, hours_used
from sweeps.engine.run.calibrate import Speed
from sweeps.engine.run.calibration import Estimate, kind_of, name_of
from sweeps.engine.run.money import rate
from sweeps.engine.run.price import Price, clock, price, request_for
from sweeps.engine.spec.cells import Cell, fixed_cells
from sweeps.engine.spec.objective import Asha
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

BASE = dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=10, global_batch=256)
CPU = Request(workers=1, cpus=1, gpus=0, device="X")
GPUS = Request(workers=2, cpus=4, gpus=2, device="H100")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of this test's own."""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    return tmp_path / "results"


def planned(entries: Mapping[str, Entry] = {}, **fields: Any) -> Plan:
    """The plan of a sweep, with what the store has of it."""
    sweep = Sweep(**({"name": "study", "purpose": "", "base": BASE} | fields))
    rules = Rules(stopping=sweep.early_stopping is not None)
    return laid_out(sweep, BASE, tuple(fixed_cells(sweep, BASE)), entries, (), rules)


def entry(config: TrainConfig, request: Request = CPU, **fields: Any) -> Entry:
    """A cell of the store, finished unless told otherwise."""
    values = {
        "run_id": "r",
        "key": cell_key(config),
        "status": "finished",
        "role": "cell",
        "label": "",
        "params": {key: str(value) for key, value in flatten(config).items()},
        "metrics": {"train/images_per_s": 500.0},
        "device_seconds": 100.0,
        "epoch": config.epochs,
        "resources": str(request),
    }
    return Entry(**(values | fields))


def estimate(epoch_s: float = 36.0, once_s: float = 0.0, **fields: Any) -> Estimate:
    return Estimate(images_per_s=100.0, epoch_s=epoch_s, once_s=once_s, source="measured", **fields)


def priced(plan: Plan, request: Request = CPU, **fields: Any) -> Price:
    """The plan at one estimate for every kind of cell."""
    estimates = {name_of(config, request): estimate(**fields) for config in price_module.kinds(plan)}
    return Price(plan, request, 4, estimates, None)


def measuring(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> list[str]:
    """What is measured from now on, by name, without Ray."""
    asked: list[str] = []

    def measured(todo: Mapping[str, TrainConfig], *_: object) -> Iterator[tuple[str, Estimate]]:
        for name in todo:
            asked.append(name)
            yield name, estimate(**({"peak_gb": 1.0, "device_gb": 0.0} | fields))

    monkeypatch.setattr(calibration, "_measured", measured)
    monkeypatch.setattr(price_module.ray, "is_initialized", lambda: True)
    node = {"NodeName": "n", "Alive": True, "Resources": {"CPU": 4.0}}
    monkeypatch.setattr(price_module.ray, "nodes", lambda: [node])
    return asked


# Which cells take alike.


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({"seed": 3}, True),
        ({"epochs": 99}, True),
        ({"optim": dataclasses.replace(BASE.optim, lr=0.1)}, True),
        ({"method": LeJEPA(num_slices=16, lamb=0.5)}, True),
        ({"method": LeJEPA(num_slices=9)}, True),
        ({"method": LeJEPA(num_slices=17)}, False),
        ({"global_batch": 128}, False),
        ({"precision": "bf16"}, False),
        ({"model": dataclasses.replace(BASE.model, compile=True)}, False),
        ({"model": dataclasses.replace(BASE.model, encoder="resnet18")}, False),
        ({"views": dataclasses.replace(BASE.views, num_local=2)}, False),
        ({"views": dataclasses.replace(BASE.views, blur=0.5)}, False),
    ],
)
def test_a_kind_is_what_decides_the_speed(change: dict[str, Any], alike: bool) -> None:
    assert (name_of(BASE, CPU) == name_of(dataclasses.replace(BASE, **change), CPU)) == alike


def test_the_store_names_kinds_as_configs_do_and_other_resources_are_another_kind() -> None:
    assert kind_of(entry(BASE).params) == kind_of(flatten(BASE))
    assert len({name_of(BASE, CPU), name_of(BASE, GPUS), name_of(BASE, dataclasses.replace(CPU, device="Y"))}) == 3


# Where estimates come from.


def test_the_store_is_asked_before_the_cache_and_the_cache_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, results: Path
) -> None:
    asked = measuring(monkeypatch)
    monkeypatch.setattr("sweeps.engine.cluster.resources._cpu_name", lambda: "X")
    plan = planned(grid={"method.lamb": [0.1, 0.2]})
    assert price(plan).total == pytest.approx(2 * 10 * 36 / 3600)
    assert len(asked) == 1, "both cells take alike"
    assert price(plan).total == pytest.approx(0.2)
    assert len(asked) == 1, "measured before"
    first = plan.fixed[0].config
    took = [entry(dataclasses.replace(first, seed=seed), device_seconds=10.0 * seed) for seed in (1, 2, 9)]
    stored = planned({one.key: one for one in took}, grid={"method.lamb": [0.1, 0.2]})
    assert price(stored).total == pytest.approx(2 * 20 / 3600), "the median of what finished cells took"
    assert "as in 3 finished cells" in "\n".join(price(stored).lines())
    (results / "calibration.json").write_text("{")
    assert price(plan).total == pytest.approx(0.2)
    assert len(asked) == 2, "a damaged cache is measured anew"
    assert len(json.loads((results / "calibration.json").read_text())) == 1


@pytest.mark.parametrize("other", [{"status": "diverged"}, {"resources": str(GPUS)}, {"device_seconds": 0.0}])
def test_what_did_not_finish_here_says_nothing(other: dict[str, Any]) -> None:
    assert calibration.ran([entry(BASE, **other)], CPU) == {}


def test_workers_and_gpus_are_taken_out_of_device_seconds_and_come_back_in_hours() -> None:
    (found,) = calibration.ran([entry(BASE, GPUS, device_seconds=4 * 3600.0)], GPUS).values()
    assert found.seconds(10) == pytest.approx(3600)
    plan = planned(seeds=(0, 1))
    assert Price(plan, GPUS, 4, {name_of(BASE, GPUS): found}, None).total == pytest.approx(2 * 4)


def test_what_could_not_be_measured_is_said_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measuring(monkeypatch, problem="slower than 3 images/s")
    for _ in range(2):
        assert "slower than 3 images/s" in "\n".join(price(planned()).lines())
    assert len(asked) == 2


def test_real_measurements_say_what_a_cell_takes_and_why_another_cannot_run(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Ray, side by side with a cell whose global batch is larger than the training split."""
    plan = planned(grid={"global_batch": [256, 4096]})
    told: list[str] = []
    with ray_session(num_cpus=2):
        cost = price(plan, note=told.append, free=lambda: told.append("free"))
        monkeypatch.setattr(calibration, "LIMIT_S", 0.5)
        late = price(planned(grid={"global_batch": [128]}))
        slow = calibration._too_slow(ray.put(1280), BASE)
    assert 0 < cost.hours(plan.fixed[0]) < 1
    assert told[0] == "free"
    assert any("ConfigError: global_batch must not exceed the 1222 training images" in line for line in told)
    (row,) = json.loads((results / "calibration.json").read_text()).values()
    assert row["images_per_s"] > 0
    assert "in all at least 0 " in late.lines()[-1]
    assert "not begun after 0 s" in late.lines()[1]
    assert (slow.images_per_s, slow.epoch_s) == (4 * 256 / 0.5, 1280 / (4 * 256 / 0.5))  # two to warm up, two timed


def test_a_machine_that_starts_late_does_not_count_against_the_measurement(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two that take the only CPU, the second answers when the first has ended: later than it may take to measure.

    Four seconds of the driver's clock pass within each of them, and none else.
    """

    class Slow:
        def __init__(self, _: TrainConfig) -> None:
            self.speed = Speed(images_per_s=1.0, epoch_s=1.0, once_s=1.0, peak_gb=1.0, device_gb=0.0)

        def images(self) -> int:
            return 1

        def measure(self, **_: int) -> Speed:
            (tmp_path / str(os.getpid())).touch()
            time.sleep(4)
            return self.speed

    monkeypatch.setattr(calibration, "Bench", Slow)
    monkeypatch.setattr(calibration, "LIMIT_S", 6.0)
    plan = planned(grid={"global_batch": [128, 256]})
    todo = {name_of(cell.config, CPU): cell.config for cell in plan.fixed}
    with ray_session(num_cpus=1):
        with monkeypatch.context() as patch:
            patch.setattr(calibration, "time", SimpleNamespace(monotonic=lambda: 4.0 * len([*tmp_path.iterdir()])))
            found = dict(calibration._measured(todo, CPU, at_once=2, start_s=100.0))
        never = dict(calibration._measured(todo, dataclasses.replace(CPU, cpus=2), at_once=2, start_s=0.5))
    assert [one.problem for one in found.values()] == ["", ""]
    assert {one.problem.partition(":")[0] for one in never.values()} == {"not begun after 0 s"}


@pytest.mark.parametrize(("address", "limit"), [("", 120.0), ("10.0.0.1:6379", 1800.0)])
def test_on_a_cluster_a_measurement_waits_for_its_machine_but_not_of_a_dry_run(
    monkeypatch: pytest.MonkeyPatch, address: str, limit: float
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(calibration, "_measured", lambda *given: limits.append(given[-1]) or iter(()))
    monkeypatch.setattr(calibration, "cluster_address", lambda: address)
    node = {"NodeName": "n", "Alive": True, "Resources": {"CPU": 4.0}}
    monkeypatch.setattr(price_module.ray, "nodes", lambda: [node])
    for start in (True, False):
        with pytest.raises(KeyError):  # nothing comes of it here
            calibration.calibrated([BASE], CPU, [node], note=price_module.silent, start=start)
    assert limits == [limit, 120.0]


def test_a_dry_run_starts_no_machine_and_says_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measuring(monkeypatch, peak_gb=7.5, device_gb=80.0)  # the node that is up has no GPU
    to_come = {"NodeName": "gpu", "Resources": {"CPU": 64.0, "GPU": 1.0}}
    monkeypatch.setattr(price_module, "nodes_to_use", lambda _: [*ray.nodes(), to_come])
    told: list[str] = []
    plan = planned(gpus_per_worker="measured")
    cold = price(plan, note=told.append, start=False)
    assert "(no machine that could run it is up), 0 GPU-hours each, not measured" in cold.lines()[1]
    assert told == [
        "how many trials share a GPU is measured at the launch: "
        "no machine that could run it is up; here each has its own"
    ]
    assert asked == []
    assert price(plan).request.gpus == pytest.approx(0.1111)
    assert len(asked) == 1


# Hours and money.


def test_hours_count_epochs_start_and_what_is_behind_a_cell() -> None:
    plan = planned(seeds=(0, 1), references=({"epochs": 0},))
    reference, first, second = plan.fixed
    begun = entry(first.config, status="interrupted", epoch=7)
    plan = dataclasses.replace(plan, entries={begun.key: begun})
    cost = priced(plan, once_s=72.0)
    assert [cost.hours(cell) for cell in (reference, first, second)] == pytest.approx([0.02, 0.05, 0.12])
    assert cost.total == pytest.approx(0.19)
    assert cost.wall_hours == pytest.approx(0.12), "the longest cell"


def test_points_still_to_be_proposed_count_as_the_mean_of_the_spaces_ends() -> None:
    space = {"method.num_slices": IntDistribution(16, 64), "method.lamb": FloatDistribution(0.01, 0.1)}
    plan = planned(space=space, trials=6)
    cheap, dear = (name_of(dataclasses.replace(BASE, method=LeJEPA(num_slices=slices)), CPU) for slices in (16, 64))
    cost = Price(plan, CPU, 2, {cheap: estimate(360.0), dear: estimate(720.0)}, None)
    # three ends: the first of each domain, the last of slices, the last of lamb
    assert cost.unnamed == pytest.approx((1, 4 / 3, 2))
    assert cost.total == pytest.approx(6 * 4 / 3)
    assert cost.wall_hours == pytest.approx(4)
    between = Cell(config=dataclasses.replace(BASE, method=LeJEPA(num_slices=32)), label="")
    assert cost.hours(between) == pytest.approx(2), "not foreseen: the slowest that is known"
    text = "\n".join(cost.lines())
    assert "6 still to be proposed, each 1 to 2 CPU-worker-hours" in text
    assert "num_slices=64" in text


def test_the_lines_name_unit_total_money_and_early_stopping() -> None:
    plan = planned(grid={"method.lamb": [0.1, 0.2]}, early_stopping=Asha(first=1), workers=2)
    cost = dataclasses.replace(priced(plan, GPUS, epoch_s=360.0), rate=2.5)
    assert cost.dollars == pytest.approx(2 * 4 * 2.5)
    head, row, total = cost.lines()
    assert head == "price of 2 cells, 2 at once, each on 2 x (4 CPU, 2 H100):"
    assert row.strip() == "100 images/s, 4 GPU-hours each, measured"
    assert "in all 8 GPU-hours at most, for early stopping ends some, 20.00 dollars; about 1.0 h" in total
    done = dataclasses.replace(plan, entries={cell.key: entry(cell.config) for cell in plan.fixed})
    assert priced(done).lines() == []
    assert priced(done).total == 0


def test_the_clock_in_words() -> None:
    assert [clock(seconds / 3600) for seconds in (40, 150, 9000)] == ["40 s", "2 min", "2.5 h"]


CLUSTER = {
    "available_node_types": {
        "bare": {"node_config": {}},
        "head": {"resources": {"CPU": 8}},
        "big": {"resources": {"CPU": 96, "GPU": 8}},
        "small": {"resources": {"CPU": 8, "GPU": 1}},
    },
}


@pytest.mark.parametrize(
    ("prices", "request_", "dollars"),
    [
        ({"big": 32.0, "small": 3.0}, GPUS, 4.0),  # 32 / 8 per GPU, dearer than 3 / 1
        ({"small": 3.0, "head": 0.5}, GPUS, 3.0),
        ({"head": 0.5}, GPUS, None),
        ({"big": 32.0}, CPU, None),  # a cluster for GPUs
    ],
)
def test_a_node_costs_what_its_gpus_share(prices: dict[str, float], request_: Request, dollars: float | None) -> None:
    assert rate({**CLUSTER, "metadata": {"prices": prices}}, request_) == dollars


def test_without_gpus_a_node_costs_what_its_workers_share() -> None:
    content = {"available_node_types": {"cpu": {"resources": {"CPU": 16}}}, "metadata": {"prices": {"cpu": 0.8}}}
    assert rate(content, dataclasses.replace(CPU, cpus=4)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (3.0, "got 3.0"),
        ({"bigg": 3.0}, "did you mean 'big'?"),
        ({"big": "3"}, "got '3' for big"),
        ({"big": -1}, "got -1 for big"),
        ({"big": float("nan")}, "got nan for big"),
        ({"big": True}, "got True for big"),
        ({"bare": 1.0}, "got bare, whose resources are not written"),
    ],
)
def test_wrong_prices_are_answered_in_one_line(prices: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^metadata\.prices in the cluster's file must give dollars per") as caught:
        rate({**CLUSTER, "metadata": {"prices": prices}}, GPUS)
    assert words in str(caught.value)


@pytest.mark.usefixtures("priced")
@pytest.mark.parametrize(("address", "dollars"), [("10.0.0.1:6379", 0.8), ("", None)])
def test_the_price_is_that_of_the_cluster_which_is_joined(
    address: str, dollars: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies in the folder, which `ray job submit --working-dir .` and Slurm start in."""
    files = {"joined.yaml": 0.8, "cluster.yaml": 6.0}
    for name, each in files.items():
        types = {"cpu": {"resources": {"CPU": 1}}}
        (tmp_path / name).write_text(json.dumps({"available_node_types": types, "metadata": {"prices": {"cpu": each}}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nodes, "BOOTSTRAP", str(tmp_path / "joined.yaml"))
    monkeypatch.setattr(nodes, "cluster_address", lambda: address)
    assert price(planned()).rate == dollars
    (tmp_path / "joined.yaml").unlink()  # Slurm
    assert price(planned()).rate is None


# The budget.


def budgeted(limit: float, used: float = 0.0, **fields: Any) -> tuple[Budget, tuple[Cell, ...], SimpleNamespace]:
    """A budget for six cells of 0.1 hours, and its clock, in hours."""
    now = SimpleNamespace(hours=0.0)
    plan = planned(seeds=(0, 1, 2, 3, 4, 5))
    budget = Budget(limit, priced(plan, **fields), used, now=lambda: now.hours * 3600)
    return budget, plan.fixed, now


def test_a_budget_admits_what_fits_beside_what_was_used_and_what_runs() -> None:
    budget, cells, _ = budgeted(0.55, used=0.3)
    assert [budget.admits(cell) for cell in cells] == [True, True, False, False, False, False]
    assert budget.admits(cells[0]), "once more for the same cell changes nothing"
    assert budget.refused == {cell.key for cell in cells[2:]}
    budget.started(cells[0].key)
    budget.ended(cells[0].key)  # at once: it diverged
    assert budget.admits(cells[2])
    assert len(budget.refused) == 3


def test_real_hours_count_while_a_cell_runs_longer_than_its_price() -> None:
    budget, cells, now = budgeted(0.55)
    assert budget.admits(cells[0])
    budget.started(cells[0].key)
    now.hours = 0.4
    assert budget.used_hours == pytest.approx(0.4)
    assert budget.admits(cells[1])  # 0.4 + 0.1
    assert not budget.admits(cells[2])
    budget.started(cells[1].key)
    now.hours = 0.5
    budget.ended(cells[0].key)
    budget.started(cells[1].key)  # its trial was lost and came back: its time goes on
    now.hours = 0.52
    assert budget.used_hours == pytest.approx(0.5 + 0.12)
    assert not budget.admits(cells[2])


def test_workers_times_gpus_use_the_budget_up() -> None:
    now = SimpleNamespace(hours=0.0)
    plan = planned(seeds=(0, 1), workers=2)
    budget = Budget(10, priced(plan, GPUS), 0, now=lambda: now.hours * 3600)
    budget.started(plan.fixed[0].key)
    now.hours = 0.5
    assert budget.used_hours == pytest.approx(2.0)


def test_a_budget_for_not_even_one_cell_is_refused_with_the_arithmetic_and_its_remedy_works() -> None:
    with pytest.raises(ConfigError) as caught:
        budgeted(0.35, used=0.3)
    assert str(caught.value) == (
        "--max-gpu-hours must allow one more cell, got 0.35 CPU-worker-hours: study has used 0.3, "
        "and its cheapest cell takes 0.1; raise it to 0.404"
    )
    assert budgeted(0.404, used=0.3)[0].limit_hours == 0.404


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_a_positive_number(limit: float) -> None:
    with pytest.raises(ConfigError, match=r"^--max-gpu-hours must be a positive number"):
        budgeted(limit)


def test_a_budget_where_nothing_is_left_to_run_refuses_nothing() -> None:
    plan = planned()
    done = dataclasses.replace(plan, entries={cell.key: entry(cell.config) for cell in plan.fixed})
    assert Budget(0.001, priced(done), hours_used(done)).used_hours == pytest.approx(100 / 3600)


def test_a_budget_needs_a_price_and_a_cell_without_one_costs_what_the_slowest_does() -> None:
    plan = planned(grid={"global_batch": [128, 256]})
    unknown, known = plan.fixed
    lacking = calibration._unknown("OutOfMemoryError: CUDA out of memory")
    estimates = {name_of(cell.config, CPU): lacking for cell in plan.fixed}
    with pytest.raises(ConfigError) as caught:
        Budget(1.0, Price(plan, CPU, 1, estimates, None), 0.0)
    assert str(caught.value) == (
        "--max-gpu-hours needs the price of a cell, got none (OutOfMemoryError: CUDA out of memory); "
        "launch without it until a cell has finished, which gives the price"
    )
    cost = Price(plan, CPU, 1, estimates | {name_of(known.config, CPU): estimate()}, None)
    assert cost.hours(unknown) == cost.hours(known) == pytest.approx(0.1)
    budget = Budget(0.15, cost, 0.0)
    assert budget.admits(unknown)
    assert not budget.admits(known)


# Packing.


def test_a_measured_share_holds_the_largest_of_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, peak_gb=7.5, device_gb=80.0)
    nodes = [{"NodeName": "n", "Resources": {"CPU": 64.0, "GPU": 1.0, "accelerator_type:H100": 1.0}}]
    told: list[str] = []
    plan = planned(gpus_per_worker="measured", grid={"global_batch": [64, 128]})
    request = request_for(plan, nodes, note=told.append)
    assert request.gpus == 0.1111
    assert told[-1] == "9 trials share a GPU: each takes 7.5 of 80 GB"


def test_a_share_cannot_be_measured_where_a_trial_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, problem="OutOfMemoryError: CUDA out of memory")
    nodes = [{"NodeName": "n", "Resources": {"CPU": 64.0, "GPU": 1.0}}]
    with pytest.raises(ConfigError, match=r"could not be measured: OutOfMemoryError.*; set gpus_per_worker=1"):
        request_for(planned(gpus_per_worker="measured"), nodes)


def test_without_a_gpu_a_measured_share_means_cpus_and_that_is_said() -> None:
    told: list[str] = []
    nodes = [{"NodeName": "n", "Resources": {"CPU": 2.0}}]
    space = {"precision": CategoricalDistribution(["fp32"])}
    request = request_for(planned(gpus_per_worker="measured", space=space, trials=1), nodes, note=told.append)
    assert request.gpus == 0
    assert told == ["gpus_per_worker='measured' finds no GPU here: trials run on CPUs"]
