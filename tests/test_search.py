"""The searcher: every cell once, Optuna told of what was found, and a search that goes on where it stopped."""

import dataclasses
import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from ray.tune.search import Searcher

from jepa_train.flat import flatten
from jepa_train.presets import DIGITS
from sweeps.engine.cells import fixed_cells
from sweeps.engine.search import CellSearcher, completer, optuna_search
from sweeps.engine.spec import Sweep
from sweeps.engine.store import Entry

SEARCH = Sweep(
    name="study",
    purpose="",
    base=DIGITS,
    space={
        "method.lamb": FloatDistribution(0.01, 0.1, log=True),
        "method.num_slices": CategoricalDistribution([256, 512]),
    },
    trials=4,
    references=({"epochs": 0},),
)


def entry(lamb: float, value: float, status: str = "finished") -> Entry:
    """A cell that the store holds."""
    params = {key: str(text) for key, text in flatten(DIGITS).items()} | {"method.lamb": str(lamb)}
    metrics = {"val/probe_top1": value}
    key = completer(SEARCH, DIGITS)({"method.lamb": lamb, "method.num_slices": 256}).key
    return Entry(run_id=key, key=key, status=status, role="cell", label=str(lamb), params=params, metrics=metrics)


def searcher(history: list[Entry], announced: list, *, references: bool = True) -> CellSearcher:
    """As a launch makes it."""
    return CellSearcher(
        known=fixed_cells(SEARCH, DIGITS) if references else [],
        proposals=optuna_search(SEARCH, DIGITS, history),
        complete=completer(SEARCH, DIGITS),
        taken={item.key: item.scores(SEARCH.goals)[0] for item in history},
        announce=announced.append,
        objective="val/probe_top1",
    )


def test_references_first_then_the_bases_own_point_then_others():
    announced: list = []
    search = searcher([], announced)
    reference, own, other = (search.suggest(trial) for trial in "abc")
    assert reference == flatten(dataclasses.replace(DIGITS, epochs=0))
    assert own == flatten(DIGITS)
    assert other != own
    assert set(other) == set(own)  # complete configs
    assert 0.01 <= other["method.lamb"] <= 0.1
    assert [flatten(cell.config) for cell in announced] == [reference, own, other]


def test_optuna_is_told_the_last_value_once_and_failures_as_failed():
    search = searcher([], [], references=False)
    for trial, values, status in (("a", [0.5, 0.75], "finished"), ("b", [0.5], "diverged"), ("c", [], "failed")):
        search.suggest(trial)
        for epoch, value in enumerate(values):
            search.on_trial_result(trial, {"epoch": epoch, "val/probe_top1": value})
        search.on_trial_complete(trial, {"status": status})
    trials = search._proposals._ot_study.trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]
    assert trials[0].value == 0.75


def test_a_grid_ends_after_its_cells():
    grid = dataclasses.replace(SEARCH, space={}, trials=0, grid={"method.lamb": [0.02, 0.03]}, references=())
    search = CellSearcher(
        known=fixed_cells(grid, DIGITS),
        proposals=None,
        complete=completer(grid, DIGITS),
        taken={},
        announce=lambda cell: None,  # noqa: ARG005
        objective="val/probe_top1",
    )
    assert [search.suggest(trial)["method.lamb"] for trial in "ab"] == [0.02, 0.03]
    assert search.suggest("c") == Searcher.FINISHED


def test_no_point_is_proposed_twice_and_a_finite_space_ends():
    space = {"method.num_slices": CategoricalDistribution([64, 128, 256])}
    finite = dataclasses.replace(SEARCH, space=space, references=(), trials=6)
    search = CellSearcher(
        known=[],
        proposals=optuna_search(finite, DIGITS, []),
        complete=completer(finite, DIGITS),
        taken={},
        announce=lambda cell: None,  # noqa: ARG005
        objective="val/probe_top1",
    )
    proposed = []
    for trial in "abc":
        proposed.append(search.suggest(trial)["method.num_slices"])
        search.on_trial_result(trial, {"epoch": 1, "val/probe_top1": 0.5})
        search.on_trial_complete(trial, {"status": "finished"})
    assert sorted(proposed) == [64, 128, 256]
    assert search.suggest("d") == Searcher.FINISHED


def test_a_cell_begun_by_an_earlier_launch_is_told_to_optuna_when_it_ends():
    begun = completer(SEARCH, DIGITS)({"method.lamb": 0.03, "method.num_slices": 512})
    search = CellSearcher(
        known=[begun],
        proposals=optuna_search(SEARCH, DIGITS, [entry(0.02, 0.9)]),
        complete=completer(SEARCH, DIGITS),
        taken={},
        announce=lambda cell: None,  # noqa: ARG005
        objective="val/probe_top1",
    )
    assert search.suggest("a")["method.lamb"] == 0.03
    search.on_trial_result("a", {"epoch": 1, "val/probe_top1": 0.8})
    search.on_trial_complete("a", {"status": "finished"})
    told = [(trial.params, trial.value) for trial in search._proposals._ot_study.trials]
    assert told[1:] == [({"method.lamb": 0.03, "method.num_slices": 512}, 0.8)]


def test_a_continued_search_knows_its_history_and_proposes_new_points():
    history = [entry(0.02, 0.9), entry(0.05, math.nan, status="diverged")]
    search = searcher(history, [], references=False)
    told = search._proposals._ot_study.trials
    assert [(trial.params["method.lamb"], trial.state) for trial in told] == [
        (0.02, TrialState.COMPLETE),
        (0.05, TrialState.FAIL),
    ]
    assert told[0].value == 0.9
    proposed = {search.suggest(trial)["method.lamb"] for trial in "abc"}
    assert len(proposed) == 3
    assert not proposed & {0.02, 0.05}


@pytest.mark.parametrize("value", [0.5, 0.001])
def test_a_base_outside_the_space_is_not_proposed(value: float):
    base = dataclasses.replace(DIGITS, method=dataclasses.replace(DIGITS.method, lamb=value))
    proposed = optuna_search(SEARCH, base, []).suggest("a")
    assert 0.01 <= proposed["method.lamb"] <= 0.1
