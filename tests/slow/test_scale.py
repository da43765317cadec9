"""The benchmark of scale: the store that it fills is one that a sweep could have written."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.store.runs import load_runs
from benchmarks.filled_store import METRICS, drawn_cells, fill, grid_of, search_of
from benchmarks.scale import Measured, curve_rows, plan_rows, table_rows
from jepa_train.config.flat import flatten
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.store.reader import store_uri


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the store will lie."""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "mlflow.db"


def test_a_filled_store_holds_the_sweep_and_a_search(file: Path) -> None:
    sweep, search = grid_of(2), search_of(3)
    cells = make_plan(sweep, Path("scale.py")).fixed
    fill(file, sweep, cells)
    fill(file, search, drawn_cells(search, 3))
    assert [row.size for row in plan_rows(2)] == ["16 cells, all in the store"]  # it refuses what is not all done
    assert [row.what for row in table_rows(2)] == ["load_runs", "its table"]
    assert [row.size for row in curve_rows(2)] == ["16 runs x 100 epochs"]
    plan = make_plan(search, Path("scale_search.py"))
    assert (len(plan.searches[0].candidates), plan.proposals) == (3, 6)
    assert load_runs("scale", store_uri())["cell_key"].tolist() == [cell.key for cell in cells]
    client = MlflowClient(store_uri())
    (run,) = client.search_runs(
        [client.get_experiment_by_name("scale").experiment_id], f"tags.cell_key = '{cells[5].key}'"
    )
    assert run.data.params == {key: str(value) for key, value in flatten(cells[5].config).items()}
    assert run.data.metrics.keys() == set(METRICS)
    assert len(client.get_metric_history(run.info.run_id, "val/probe_top1")) == 100


def test_a_row_says_whether_its_target_is_met() -> None:
    row = Measured(what="plan", size="10 cells", seconds=2.0, peak=10**9, most=1)
    assert row.cells() == ("plan", "10 cells", "2 s", "1 GB", "at most 1 s", "no")
    assert Measured(what="plan", size="10 cells", seconds=2.0).cells() == ("plan", "10 cells", "2 s", "", "", "")
