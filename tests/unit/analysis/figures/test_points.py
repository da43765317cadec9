"""Points of figures: means over seeds and nothing else, and the same winner as in the table.

Run: python -m pytest tests/unit/analysis/figures/test_points.py
"""

from typing import Any

import pandas as pd
import pytest
from made_runs import as_search, made_runs

from analysis import figures, tables
from analysis.figures.style import styled

P, MU, REG = "method.p", "method.mu", "method.lamb_reg"
BARS = {"method.target": ["rgg", "gg"], "method.rectified": [True, False]}


def sparse(config: dict[str, Any]) -> dict[str, Any]:
    value = 0.5 + 0.01 * config.get(REG, 0)
    return {
        "test/probe_top1": value,
        "test/nonzero_fraction": value,
        "target/nonzero_fraction": value,
        "val/probe_top1": 0.5,
    }


def lack(name: str, runs: pd.DataFrame) -> str:
    return figures.find(name).lacks(runs)


def drawn(name: str, runs: pd.DataFrame) -> Any:
    assert lack(name, runs) == ""
    with styled():
        return figures.find(name).make(runs)


def test_a_searched_axis_is_not_drawn_along() -> None:
    runs = as_search(made_runs({P: [1.0, 2.0], MU: [-1.0, -0.5, 0.0, 0.5]}, sparse, seeds=(0,)), [P, MU])
    for name in ("accuracy_sparsity", "nonzero_theory"):
        assert lack(name, runs) == "a search proposed method.mu: no grid varies it"


def test_a_figure_refuses_axes_over_which_it_would_average() -> None:
    runs = made_runs({P: [1.0, 2.0], MU: [-1.0, 0.0], REG: [0.1, 0.2]}, sparse, seeds=(0,))
    assert lack("nonzero_theory", runs) == ""  # it draws each
    assert lack("accuracy_sparsity", runs) == ""
    assert lack("features", made_runs(BARS | {MU: [0.0, 1.0]}, sparse)) == "it would average over method.mu"
    encoders = made_runs({"model.encoder": ["a", "b"], "data.name": ["digits", "cifar10"]}, sparse)
    assert lack("architectures", encoders) == "it would choose among data sets"


def test_a_table_and_its_figure_have_the_same_winner() -> None:
    """.001 has the better val, of one seed while the others run; .005 has all three."""

    def measure(config: dict[str, Any]) -> Any:
        if config["optim.lr"] == 0.001:
            return {"val/probe_top1": 0.85, "test/probe_top1": 0.9} if config["seed"] == 0 else "running"
        return {"val/probe_top1": 0.80, "test/probe_top1": 0.7}

    runs = made_runs({"model.encoder": ["a", "b"], "optim.lr": [0.001, 0.005]}, measure)
    table = tables.find_table("lejepa_architectures", "sqlite:////nowhere/mlflow.db").finish(runs)
    assert [cell.mean for cell in table.frame.to_numpy().ravel()] == pytest.approx([70, 70])
    assert table.notes[0] == "optim.lr chosen by val/probe_top1 from 3 runs each"
    (axes,) = drawn("architectures", runs).axes
    assert [y for bars in axes.containers for y in bars.lines[0].get_ydata()] == pytest.approx([70, 70])
