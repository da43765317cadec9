"""--only and --limit on plans: the cells that run now, while the list of all cells stays; and overrides of the base.

Run: python -m pytest tests/unit/plan/test_choice.py
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from simulated_sweep import entry_of, plan_of

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.choice import CellChoice, read_choice
from sweeps.engine.plan.plan import Plan, make_plan, overridden
from sweeps.engine.spec.cells import fixed_cells
from sweeps.engine.spec.sweep import BestOf, Sweep

GRID = Sweep(
    name="study",
    purpose="",
    base=DIGITS,
    grid={"method.lamb": [0.02, 0.05, 1 / 3], "optim.weight_decay": [0, 1e-3]},
    seeds=(0, 1),
    references=({"epochs": 0},),
)
METHODS = Sweep(name="study", purpose="", base=DIGITS, grid={"method": ["lejepa", "vicreg"]})
GRIDS = Sweep(name="study", purpose="", base=DIGITS, grid=[{"epochs": [1], "global_batch": [32]}, {"epochs": [2]}])
SPACE = {"optim.lr": FloatDistribution(1e-3, 1e-2, log=True)}
SEARCH = Sweep(name="study", purpose="", base=DIGITS, space=SPACE, trials=4, seeds=(0, 1), references=({"epochs": 0},))
FAIR = dataclasses.replace(SEARCH, grid={"method.lamb": [0.02, 0.05]}, references=())


def plan_with(sweep: Sweep, *only: str, limit: int = 1000, finished: int = 0, **rules: object) -> Plan:
    entries = [entry_of(cell) for cell in fixed_cells(sweep, DIGITS)[:finished]]
    return plan_of(sweep, entries, choice=read_choice(sweep, only, limit), **rules)


ZERO = ["lamb=0.02 weight_decay=0", "lamb=0.05 weight_decay=0"]
CASES = {  # -> sweep, words of --only, labels of the cells that run without their seeds
    "a value": (GRID, ["lamb=0.02"], ["lamb=0.02 weight_decay=0", "lamb=0.02 weight_decay=0.001"]),
    "two axes": (GRID, ["lamb=0.02 weight_decay=0"], ["lamb=0.02 weight_decay=0"]),
    "two words": (GRID, ["lamb=0.02", "weight_decay=0"], ["lamb=0.02 weight_decay=0"]),
    "several values": (
        GRID,
        ["lamb=0.02,0.05 weight_decay=0"],
        ZERO,
    ),
    "a name twice": (
        GRID,
        ["lamb=0.02 lamb=0.05 weight_decay=0"],
        ZERO,
    ),
    "keys and other forms of numbers": (
        GRID,
        ["method.lamb=2e-2  optim.weight_decay=1e-3"],
        ["lamb=0.02 weight_decay=0.001"],
    ),
    "an equal number": (GRID, [f"lamb={1 / 3} weight_decay=0.0"], ["lamb=0.3333 weight_decay=0"]),
    "a reference": (GRID, ["epochs=0"], ["epochs=0"]),
    "in another case": (METHODS, ["method=VICReg"], ["method=vicreg"]),
    "a method": (METHODS, ["method=vicreg"], ["method=vicreg"]),
    "an axis of one of two grids": (GRIDS, ["global_batch=32"], ["epochs=1 global_batch=32"]),
}


@pytest.mark.parametrize(("sweep", "only", "labels"), CASES.values(), ids=CASES)
def test_only_chooses_cells_by_their_names_and_values(sweep: Sweep, only: list, labels: list) -> None:
    plan = plan_with(sweep, *only)
    assert [*dict.fromkeys(cell.setting for cell in plan.missing)] == labels
    assert plan.total == plan_with(sweep).total == plan.lacking, "the list of cells stays"
    assert {row.cell.key for row in plan.rows() if not row.note} == {cell.key for cell in plan.missing}


def test_a_seed_and_a_limit_bound_what_runs_and_the_next_launch_takes_the_following_cells() -> None:
    assert {cell.config.seed for cell in plan_with(GRID, "seed=1").missing} == {1}
    first = plan_with(GRID, "lamb=0.02 seed=0", limit=1)
    assert [cell.label for cell in first.missing] == ["lamb=0.02 weight_decay=0 seed=0"]
    assert (first.todo, first.lacking, first.total) == (1, 13, 13)
    assert [row.note for row in first.rows() if not row.due] == ["not in this launch"] * 12
    following = plan_with(GRID, limit=2, finished=5)
    assert following.missing == [*following.fixed[5:7]]


def test_results_of_other_code_that_are_not_chosen_stay() -> None:
    cells = fixed_cells(GRID, DIGITS)
    entries = {cell.key: entry_of(cell, outdated=True) for cell in cells}
    choice = read_choice(GRID, ["lamb=0.05"], 1000)
    read = dataclasses.replace(plan_with(GRID).rules, retry=frozenset({"outdated"}), choice=choice).read(entries)
    assert {read[cell.key].restart for cell in cells if cell.config.method.lamb == 0.05 and cell.role == "cell"} == {
        True
    }
    assert {read[cell.key].restart for cell in cells if cell.config.method.lamb != 0.05 or cell.role != "cell"} == {
        False
    }


def test_a_search_runs_at_the_chosen_points_of_the_grid_and_a_limit_counts_its_proposals() -> None:
    plan = plan_with(FAIR, "lamb=0.05")
    assert (plan.todo, plan.lacking, plan.total) == (5, 10, 10)
    assert {cell.config.method.lamb for cell in plan.stand_ins} == {0.05}
    assert (plan_with(SEARCH, limit=3).todo, len(plan_with(SEARCH, limit=3).stand_ins)) == (3, 2)
    assert [cell.label for cell in plan_with(SEARCH, "epochs=0").missing] == ["epochs=0 seed=0"]


BAD = {  # -> sweep, word, message
    "no term": (GRID, "lamb", "--only must be NAME=VALUE, got 'lamb'; write --only \"lamb=0.05,0.1 seed=0\""),
    "blank": (GRID, "", "--only must be NAME=VALUE, got ''"),
    "no value": (GRID, "lamb=", "--only must be NAME=VALUE, got 'lamb='"),
    "a name that does not vary": (GRID, "lamda=1", "--only lamda=1: lamda does not vary in study; did you mean 'lamb'"),
    "a field of the base": (SEARCH, "global_batch=8", "--only global_batch=8: global_batch does not vary in study"),
    "a number": (GRID, "lamb=0.06", "--only lamb=0.06 fits no cell; did you mean '0.05'?"),
    "one of two": (GRID, "lamb=0.05,0.06", "--only lamb=0.06 fits no cell; did you mean '0.05'?"),
    "a trailing comma": (GRID, "lamb=0.05,", "--only lamb= fits no cell"),
    "a seed": (GRID, "seed=2", "--only seed=2 fits no cell; choose one of 0, 1"),
    "the only value": (SEARCH, "epochs=7", "--only epochs=7 fits no cell; choose one of 0"),
    "a text": (METHODS, "method=vicrag", "--only method=vicrag fits no cell; did you mean 'vicreg'?"),
    "a searched key": (SEARCH, "lr=0.01", "--only lr=0.01: study searches, and chooses the values of optim.lr as it"),
    "a seed of a search": (FAIR, "seed=0", "--only seed=0: study searches, and chooses the values of seed as it"),
}


@pytest.mark.parametrize(("sweep", "word", "message"), BAD.values(), ids=BAD)
def test_a_wrong_choice_is_one_line(sweep: Sweep, word: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_choice(sweep, [word], 1)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_values_that_no_cell_has_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    choice = read_choice(GRIDS, ["epochs=2 global_batch=32"], 1)
    with pytest.raises(ConfigError, match=r"^--only fits no cell of study, as no cell has these values together"):
        make_plan(GRIDS, Path("study.py"), choice=choice)
    assert make_plan(GRIDS, Path("study.py"), choice=CellChoice(limit=1)).todo == 1


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["epochs=5"], ("epochs", 5)),
        (["method.lamb=0.5", "precision=bf16"], ("precision", "bf16")),
        (["data.path=/elsewhere"], ("data.path", "/elsewhere")),
        (["method=vicreg"], ("method.name", "vicreg")),
    ],
)
def test_an_assignment_sets_a_field_of_the_base(words: Sequence[str], field: tuple[str, object]) -> None:
    found: object = overridden(METHODS if words[0] == "epochs=5" else SEARCH, DIGITS, words)
    for name in field[0].split("."):
        found = getattr(found, name)
    assert found == field[1]


def test_another_data_set_than_that_of_a_best_cell_loses_its_identity() -> None:
    best = dataclasses.replace(DIGITS, data=dataclasses.replace(DIGITS.data, fingerprint="f", content="c"))
    sweep = Sweep(name="study", purpose="", base=BestOf("other"))

    def identity(word: str) -> tuple[str, str]:
        data = overridden(sweep, best, [word]).data
        return data.fingerprint, data.content

    assert (identity("data.name=cifar10"), identity("data.path=/there")) == (("", ""), ("f", "c"))


@pytest.mark.parametrize(
    ("sweep", "word", "message"),
    [
        (GRID, "epoch=5", "epoch is not a field of the config; did you mean 'epochs'?"),
        (GRID, "lamb=0.1", "lamb is not a field of the config; did you mean 'method.lamb'?"),
        (GRID, "lr=0.1", "lr is not a field of the config; did you mean 'optim.lr' or 'probe.lr'?"),
        (GRID, "epochs=five", "epochs must be a whole number, got 'five'"),
        (GRID, "epochs=-1", "epochs must"),
        (
            GRID,
            "method.lamb=0.1",
            "method.lamb varies in study, so the base cannot set it, got method.lamb=0.1; choose",
        ),
        (SEARCH, "optim.lr=0.1", "optim.lr varies in study, so the base cannot set it, got optim.lr=0.1; change it in"),
        (GRID, "seed=3", "seed varies in study, so the base cannot set it, got seed=3; write --seeds 3"),
    ],
)
def test_a_wrong_assignment_is_one_line(sweep: Sweep, word: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        overridden(sweep, TrainConfig(), [word])
    assert str(refused.value).startswith(message)
