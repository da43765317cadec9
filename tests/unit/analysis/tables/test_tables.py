"""Tables of the papers from runs without a store: layouts, states, averages over seeds, scales, code versions.

Run: python -m pytest tests/unit/analysis/tables/test_tables.py
"""

import json
from typing import Any

import pandas as pd
import pytest
from latex import check_latex
from made_runs import made_runs

from analysis import tables
from analysis.__main__ import main
from analysis.table.cells import cell_of, percent
from analysis.table.code_versions import code_note
from analysis.table.layout import FinishedTable
from analysis.table.render import render

NOWHERE = "sqlite:////nowhere/mlflow.db"
EXPORTS = "docs/results/store"
SWINGS = {0: -0.01, 1: 0.0, 2: 0.01}  # of a seed
FULL = "50.00 ± 1.00 (n=3)"


def built(name: str, runs: pd.DataFrame) -> FinishedTable:
    return tables.find_table(name, NOWHERE).finish(runs)


def texts(frame: pd.DataFrame) -> dict[Any, list[str]]:
    return {label: [str(cell) for cell in row] for label, row in zip(frame.index, frame.to_numpy(), strict=True)}


def top1(value: float, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"test/probe_top1": value + SWINGS[config["seed"]], "val/probe_top1": value, **more}


def half(config: dict[str, Any]) -> dict[str, Any]:
    return top1(0.5, config)


def test_every_state_of_a_cell_is_shown_and_none_is_a_number() -> None:
    states = {(2, 0.02): "diverged", (4, 0.02): "running", (4, 0.05): None}
    states |= {(4, 0.1): {"epoch": 5, "test/probe_top1": 1.0}}

    def measure(config: dict[str, Any]) -> Any:
        place = (config["views.num_global"], config["method.lamb"])
        if place in states and (config["seed"] == 0 or place == (4, 0.05)):
            return states[place]
        return {} if place == (2, 0.01) else top1(0.5 + config["method.lamb"], config)

    grid = [
        {"views.num_global": [2], "method.lamb": [0.005, 0.01, 0.02]},
        {"views.num_global": [4], "method.lamb": [0.02, 0.05, 0.1]},
    ]
    table = built("lejepa_lambda_views", made_runs(grid, measure))
    assert table.frame.columns.tolist() == [0.005, 0.01, 0.02, 0.05, 0.1]
    assert texts(table.frame) == {
        2: ["50.50 ± 1.00 (n=3)", "not measured", "52.50 ± 0.71 (n=2, 1 diverged)", "-", "-"],
        4: ["-", "-", "52.50 ± 0.71 (n=2, 1 running)", "missing", "60.50 ± 0.71 (n=2, 1 truncated at 5)"],
    }
    assert [[cell.bold for cell in row] for row in table.frame.to_numpy()] == [
        [False, False, True, False, False],  # the best of each number of views
        [False, False, False, False, True],
    ]
    assert table.notes[-1] == "study: 12 finished, 1 diverged, 1 running, 1 truncated, 3 missing"


def test_levels_of_rows_and_columns_are_the_papers() -> None:
    def value(config: dict[str, Any]) -> dict[str, Any]:
        return top1(config["model.projector_dim"] / 1e3 + config["method.num_slices"] / 1e5, config)

    axes = {"model.projector_dim": [64, 128], "method.num_slices": [4096, 1024], "model.embed_dim": [512, 2048]}
    frame = built("lejepa_dims", made_runs(axes, value)).frame
    assert frame.columns.tolist() == [(1024, 512), (1024, 2048), (4096, 512), (4096, 2048)]
    assert texts(frame)[64] == [*["7.42 ± 1.00 (n=3)"] * 2, *["10.50 ± 1.00 (n=3)"] * 2]
    axes = {"method.t_max": [1.0, 3.0], "method.num_slices": [64], "method.num_knots": [5, 17]}
    frame = built("lejepa_sigreg", made_runs(axes, half)).frame
    assert (frame.index.tolist(), frame.columns.tolist()) == ([("[-1, 1]", 64), ("[-3, 3]", 64)], [5, 17])


def test_batches_that_depend_on_the_views_are_a_note() -> None:
    grid = [
        {"views.num_global": [g], "views.num_local": [v - g], "global_batch": [b]}
        for v, g, b in ((4, 1, 32), (6, 1, 48), (4, 2, 32), (6, 4, 48))
    ]
    table = built("lejepa_views", made_runs(grid, half))
    assert texts(table.frame) == {4: [FULL, FULL, "-"], 6: [FULL, "-", FULL]}
    assert table.notes[0].startswith("global batch: 32 with 4 views, 1 global, 32 with 4 views, 2 global, 48 with 6")


def test_methods_with_different_axes_stand_in_one_table_in_groups() -> None:
    grid = [
        {"method": ["vicreg"], "method.nonneg": ["none", "rep_relu"]},
        {"method": ["ncl"], "method.nonneg": ["relu"]},
        {"method": ["lejepa"]},
        {"method": ["rectified_lpjepa"], "method.p": [1.0], "method.mu": [0.25, -3.0]},
    ]
    target = {"method.sigma_mode": "gn", "method.target": "rgg", "method.rectified": True}

    def measure(config: dict[str, Any]) -> Any:
        ours = target | {"target/nonzero_fraction": 0.65} if config["method"] == "rectified_lpjepa" else {}
        more = {"test/projector_top1": 0.4, "test/l1_sparsity": 0.3, "test/nonzero_fraction": 0.7}
        return None if config["method"] == "ncl" else half(config) | more | ours

    table = built("rectified_targets", made_runs(grid, measure))
    assert table.frame.columns.tolist() == ["encoder top-1 ↑", "projector top-1 ↑", "L1 ↓", "L0 ↓", "L0, theory"]
    rows = texts(table.frame)
    assert {label: (row[0], row[4]) for label, row in rows.items()} == {
        ("ours", "RGN_1.0(0.25, sigma_GN)"): (FULL, "0.6500"),  # theory has no spread
        ("ours", "RGN_1.0(-3, sigma_GN)"): (FULL, "0.6500"),
        ("sparse", "NVICReg-RepReLU"): (FULL, "-"),
        ("sparse", "NCL-ReLU"): ("missing", "missing"),
        ("dense", "VICReg"): (FULL, "-"),
        ("dense", "LeJEPA"): (FULL, "-"),
    }
    check_latex(render(table, "latex"))


def test_transfer_has_a_block_per_protocol_and_means_of_complete_rows() -> None:
    def measure(config: dict[str, Any]) -> dict[str, Any]:
        scores = {f"transfer/{name}/shot1_top1": 0.1 * k for k, name in enumerate(("cifar10", "dtd"), 1)}
        return scores | ({"transfer/dtd/linear_top1": 0.8} if config["model.encoder"] == "a" else {})

    frame = built("lejepa_transfer", made_runs({"model.encoder": ["a", "b"]}, measure, seeds=(0,))).frame
    assert frame.columns.tolist() == ["cifar10", "dtd", "avg"]
    assert texts(frame)[("1", "a", "digits", 12)] == ["10.00", "20.00", "15.00"]
    assert texts(frame)[("all", "a", "digits", 12)] == ["not measured", "80.00", "not measured"]
    assert texts(frame)[("10", "b", "digits", 12)] == ["not measured"] * 3


def test_samples_compare_frozen_and_fine_tuned_encoders() -> None:
    metrics = {"test/linear_top1": 0.9, "test/shot1_top1": 0.3, "test/finetune_top1": 0.95, "test/finetune1_top1": 0.2}
    frame = built("lejepa_samples", made_runs({"model.encoder": ["a"]}, lambda _: dict(metrics), seeds=(0,))).frame
    assert frame.columns.tolist() == ["all", "1"]
    assert texts(frame) == {("no", "a"): ["95.00", "20.00"], ("yes", "a"): ["90.00", "30.00"]}


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"commit": "b" * 40}, "code versions: aaaaaaa (5 runs), bbbbbbb (1 run)"),
        ({"evaluated_by": "c" * 40}, "code versions: aaaaaaa (5 runs), aaaaaaa evaluated by ccccccc (1 run)"),
        ({"status": "diverged", "commit": "b" * 40}, ""),  # no number comes from it
    ],
)
def test_several_code_versions_are_a_footnote_with_their_commits(change: dict[str, Any], note: str) -> None:
    def measure(config: dict[str, Any]) -> dict[str, Any]:
        return half(config) | (change if config["global_batch"] == 64 and config["seed"] == 2 else {})

    runs = made_runs({"global_batch": [32, 64]}, measure)
    assert [line for line in built("lejepa_batch", runs).notes if "code" in line] == [note] * bool(note)


def test_a_note_names_numbers_of_other_code_than_that_of_the_last_launch() -> None:
    """Cells of one method and data share their code; a later launch of any of the sweeps has the present code."""

    def runs(name: str, versions: dict[str, str], at: int, **present: str) -> pd.DataFrame:
        def measure(config: dict[str, Any]) -> dict[str, Any]:
            own = config["method"]
            return half(config) | {
                "code_version": versions[own],
                "code_modules": own,
                "run_name": f"method={own} seed={config['seed']}",
            }

        found = made_runs({"method": ["lejepa", "vicreg"], "global_batch": [32]}, measure, name=name)
        code = json.dumps({"at": at, "versions": present})
        return found.assign(**{"sweep.code": code, "sweep.file": f"/p/sweeps/{name}.py", "sweep.scale": "mini"})

    def note(*parts: pd.DataFrame) -> str:
        together = pd.concat(parts, ignore_index=True)
        frame = pd.DataFrame({"top-1": [cell_of(together, percent("top-1", "test/probe_top1"))]})
        return code_note(frame, together)

    first = runs("first", {"lejepa": "a", "vicreg": "b"}, 1, lejepa="a", vicreg="b")
    assert note(first) == ""
    again = "python sweeps/first.py --scale mini --retry outdated runs them again"
    later = runs("later", {"lejepa": "c", "vicreg": "b"}, 2, lejepa="c", vicreg="b")
    for parts in (first, later), (later, first):
        assert note(*parts) == f"outdated: method=lejepa (3 of 12 runs are by other code than the present); {again}"
    evaluated = first.assign(evaluated_version=["a", *"x" * (len(first) - 1)])
    assert note(evaluated).startswith("outdated: method=lejepa, method=vicreg (5 of 6 runs")
    legacy = first.drop(columns=["code_version", "code_modules"])
    assert note(legacy) == ""
    assert note(later, legacy).startswith("outdated: method=lejepa, method=vicreg (6 of 12 runs")


def test_scales_never_mix(papers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lejepa_lambda_views", "--store", EXPORTS]) == 2
    assert capsys.readouterr().err == (
        "error: the store has lejepa_lambda_views at the scales mini, small, which never mix; choose one with --scale\n"
    )
    for name in ("lejepa_lambda_views_mini", "lejepa_lambda_views_small"):
        assert tables.table(name, EXPORTS).partition("\n")[0].endswith(f"({name.rpartition('_')[2]})**")
    assert tables.find_table("lejepa_lambda_views", papers).label == "lejepa_lambda_views-mini"  # the only one
    assert main(["lejepa_lambda_views", "--store", EXPORTS, "--scale", "lab"]) == 1
    assert "sweep lejepa_lambda_views_lab is not in the exports" in capsys.readouterr().err
    assert main(["--store", EXPORTS]) == 0
    listed = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "  mini, small  LeJEPA, Table 7" in listed["lejepa_lambda_views"]


def test_regularizers_have_time_and_gradients_in_one_row_and_slices_only_where_there_are_some() -> None:
    grid = [
        {"method": ["visreg"], "method.lamb": [0.6], "global_batch": [32, 256], "method.num_slices": [16]},
        {"method": ["kerjepa"], "method.lamb": [0.02], "global_batch": [256]},
    ]

    def measure(config: dict[str, Any]) -> dict[str, Any]:
        gradients = {f"test/gradient_at_{factor}": float(factor) for factor in ("1", "0.1", "0.01", "0.001")}
        return half(config) | gradients | {"train/images_per_s": 3200.0, "train/peak_memory_gb": 1.5}

    frame = built("regularizers", made_runs(grid, measure)).frame
    rows = texts(frame)
    assert [*rows] == [("VISReg", 32.0, 16.0), ("VISReg", 256.0, 16.0), ("KerJEPA", 256.0, "-")]
    _, *others = [cell.partition(" ")[0] for cell in rows["VISReg", 32.0, 16.0]]
    assert others == ["10.0", "1.50", "1", "0.1", "0.01", "0.001"]
    assert rows["KerJEPA", 256.0, "-"][1].startswith("80.0")
