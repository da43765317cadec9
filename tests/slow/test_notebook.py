"""The notebooks run from top to bottom on small stores, define nothing and are stored without outputs.

Run: python -m pytest tests/slow/test_notebook.py
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from paper_store import nonzero_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "analysis" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """One kernel for all notebooks, started in their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=str(FOLDER))
        yield manager
        manager.shutdown_kernel(now=True)


def executed(name: str, kernel: Any, **parameters: str) -> tuple[list[str], int, set[str]]:
    """Run a notebook with other parameters. Returns its pages, its number of pictures and its other output."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for key, value in parameters.items():
        assert f"\n{key} = " in first.source, "parameters stand at the top"
        first.source += f"\n{key} = {value!r}"
    NotebookClient(notebook, timeout=120, km=kernel, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"] for output in outputs if "data" in output]
    pages = [data.get("text/html", "") + data.get("text/markdown", "") for data in shown]
    pictures = sum("image/png" in data for data in shown)
    return pages, pictures, {line for output in outputs for line in output.get("text", "").splitlines(keepends=True)}


def test_the_overview_shows_the_table_and_the_curves_of_any_sweep(store: str, kernel: Any) -> None:
    pages, pictures, said = executed("sweep_overview", kernel, STORE=store)
    assert any("97.1" in page and "diverged" in page for page in pages)
    assert pictures == 2  # curves, and accuracy against sparsity
    assert any(page.startswith("Rectified LpJEPA Fig. 3 c") for page in pages)
    assert not said - {"\n"}


def test_lejepas_ablations_show_every_sweep_of_a_scale_with_its_figures(papers: str, kernel: Any) -> None:
    pages, pictures, said = executed("lejepa_ablations", kernel, STORE=papers)
    assert sum("table class" in page for page in pages) == 4  # architectures, label_free, lambda_views, samples
    assert pictures == 6
    assert any(page.startswith("LeJEPA Fig. 8") for page in pages)
    assert not said


def test_sparsity_shows_theory_beside_what_was_measured(papers: str, kernel: Any) -> None:
    pages, pictures, said = executed("rectified_lpjepa_sparsity", kernel, STORE=papers)
    assert pictures == 2
    assert not said
    assert f"<td>{0.1 * nonzero_of(1.0, 1.0, 0.5):.3f}</td>" in pages[-1]  # theory is 0.9 of what was measured


def test_selection_without_labels_shows_numbers_and_figures(papers: str, kernel: Any) -> None:
    pages, pictures, said = executed("label_free_selection", kernel, STORE=papers)
    assert any("10 finished, 2 failed" in page for page in pages)
    assert pictures == 3
    assert not said
    pages, _, _ = executed(
        "label_free_selection", kernel, STORE=papers, SWEEP="lejepa_lambda_views_mini", BY="views.num_global"
    )
    assert any("num_global=8: 14 finished, 1 failed" in page for page in pages)


def test_real_runs_are_shown_from_an_export_alone(kernel: Any) -> None:
    store = str(ROOT / "docs/results/store")
    pages, pictures, said = executed("sweep_overview", kernel, STORE=store, SWEEP="rectified_sparsity_small")
    assert any("41.8 &#177; 0.7" in page for page in pages)
    assert pictures >= 2
    assert not said - {"\n"}
    pages, _, _ = executed("label_free_selection", kernel, STORE=store, SWEEP="lejepa_lambda_views_mini")
    assert any("45 finished" in page for page in pages)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_analysis_alone_defines_nothing_and_has_no_outputs(path: Path) -> None:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    nodes = [node for cell in code for node in ast.walk(ast.parse(cell.source))]
    imported = {node.module.partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"analysis", "IPython"}
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in nodes)
    assert all((cell.outputs, cell.execution_count) == ([], None) for cell in code)
