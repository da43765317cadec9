"""python -m sweeps best: the winner of a table, the seed that is exported, refusals. Nothing trains.

Run: python -m pytest tests/integration/cli/test_best.py
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import timm
import torch
from launches import record

from analysis.store.runs import all_runs
from analysis.tables import table
from jepa_train.base.errors import ConfigError
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config.presets import DIGITS
from jepa_train.model.network import build_network
from jepa_train.storage.storage import checkpoints_dir
from sweeps.__main__ import main
from sweeps.engine.plan.cell_state import Rules
from sweeps.engine.plan.edits import edits_in_store
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.cells import Cell
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.mlflow_client import open_client
from sweeps.engine.store.reader import best_config, read_sweep, store_uri

FILE = Path("study.py")
GRID = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]}, seeds=(1, 0))


def top1(scores: Mapping[tuple[float, int], float]) -> Callable[[Cell], dict[str, float]]:
    """Metrics of a cell by its lamb and seed."""

    def metrics(cell: Cell) -> dict[str, float]:
        score = scores[cell.config.method.lamb, cell.config.seed]
        last = float(cell.config.epochs)
        return {
            "epoch": last,
            "train/loss": 1 - score,
            "val/probe_top1": score,
            "val/nonzero_fraction": 1.0,
            "test/probe_top1": score / 2,
        }

    return metrics


@pytest.mark.usefixtures("results")
def test_the_setting_of_the_best_mean_wins_and_its_first_seed_is_exported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The best single run is another setting's."""
    plan = make_plan(GRID, FILE)
    record(plan, plan.known, top1({(0.02, 1): 0.9, (0.02, 0): 0.1, (0.05, 1): 0.6, (0.05, 0): 0.7}))
    cell = next(cell for cell in plan.known if cell.label == "lamb=0.05 seed=1")
    network = build_network(cell.config, 10)
    with Checkpoints(checkpoints_dir("study") / cell.key, cell.config) as saves:
        saves.finish(network.state_dict(), [{"epoch": 20.0}])
    assert main(["best", "study", "--export", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == (
        "study: lamb=0.05, best of 2 settings by val/probe_top1: 0.65 (mean of seeds 1, 0)\n"
        "  test/probe_top1 0.325 (mean of seeds 1, 0)\n"
        f"  checkpoint of seed 1: {checkpoints_dir('study')}/{cell.key}\n"
        f"exported seed 1; {tmp_path}/out/README.md has the lines that load it\n"
    )
    assert "**65.00 ± " in table("study")
    assert best_config("study") == cell.config, "the base of another sweep, too"
    encoder = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    images = torch.randn(2, 3, 12, 12)
    assert torch.equal(encoder(images), network.eval().encoder(images))
    card, run = (tmp_path / "out" / "README.md").read_text(), all_runs("study").set_index("cell_key").loc[cell.key]
    by = "| chosen by | val/probe_top1 0.65, best of 2 settings |"
    for row in (
        "| sweep | study |",
        by,
        f"| MLflow run | {run['run_id']} |",
        f"| code version | {run['code_version']} |",
    ):
        assert row in card


@pytest.mark.usefixtures("results")
def test_what_has_no_winner_or_no_checkpoint_here_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan = make_plan(dataclasses.replace(GRID, seeds=(0,)), FILE)
    record(plan, plan.known[:1], lambda cell: {"epoch": float(cell.config.epochs), "val/probe_top1": 0.5})
    plan = make_plan(dataclasses.replace(GRID, name="failed", seeds=(0,)), FILE)
    record(plan, plan.known[:1], lambda _: {"epoch": 1.0}, status="diverged")
    space = {"method.lamb": [0.02]}
    limited = dataclasses.replace(
        GRID, name="limited", grid={}, space=space, trials=1, constraints=("peak memory <= 2",)
    )
    plan = make_plan(limited, FILE)
    cell = plan.searches[0].cell_at({"method.lamb": 0.02})
    record(plan, [cell], lambda _: {"epoch": float(DIGITS.epochs), "val/probe_top1": 0.5, "train/peak_memory_gb": 2.5})
    record(make_plan(limited, FILE), [], lambda _: {})  # the next launch lists the point
    for words, message in (
        (["study", "--export", str(tmp_path / "out")], "final.pt of the winner must be in "),
        (["failed"], "best needs a finished run, and failed has none yet; launch it again"),
        (
            ["limited"],
            "best: limited has no feasible candidate: none keeps train/peak_memory_gb <= 2; the nearest is lamb=0.02 "
            "seed=1 with train/peak_memory_gb 2.5; add trials, or relax the sweep's constraints",
        ),
        (["studi"], "'studi' is no sweep of the store; did you mean 'study'?"),
        ([], "best: the following arguments are required: SWEEP; write python -m sweeps best SWEEP"),
        (["study", "--exprt", "x"], "best: unrecognized arguments: --exprt x; write python"),
    ):
        assert main(["best", *words]) == 2, words
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}"), error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("results")
def test_weights_may_be_an_axis_are_reported_in_the_run_and_are_not_needed_by_a_status(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"encoder.conv1.0.weight": build_network(DIGITS, 10).encoder.conv1[0].weight}, file)
    sweep = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"model.weights": ["", str(file), "r160_in1k"]})
    plan = make_plan(sweep, FILE)
    ids = [cell.config.model.weights_id for cell in plan.known]
    assert (ids[0], len(ids[1]), ids[2]) == ("", 16, "r160_in1k")
    record(plan, plan.known, lambda cell: {"epoch": float(cell.config.epochs), "val/probe_top1": 0.5})
    runs = all_runs("study").set_index("model.weights")
    assert runs["initial_weights"].isna().tolist() == [True, False, False]
    assert runs["initial_weights"][str(file)].startswith("1 of ")
    file.unlink()
    assert edits_in_store(sweep, read_sweep("study"), Rules(), []) == {"new": 0, "dropped": 0}


def test_a_sweep_whose_first_run_has_no_parameters_yet_is_no_base(results: Path) -> None:
    """As for a moment after the start of its first cell."""
    client = open_client(store_uri())
    experiment = client.create_experiment("begun", artifact_location=(results / "artifacts").as_uri())
    client.create_run(experiment, tags={"cell_key": "0123456789abcdef", "status": "running"})
    with pytest.raises(
        ConfigError, match=r"^base is the best cell of sweep 'begun', which has no winner in this store; "
    ):
        best_config("begun")
