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


def with_parameters(name: str, **parameters: str) -> Any:
    """A notebook with other values at its top."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for key, value in parameters.items():
        assert f"\n{key} = " in first.source, "parameters stand at the top"
        first.source += f"\n{key} = {value!r}"
    return notebook


def executed(name: str, kernel: Any, **parameters: str) -> tuple[list[str], int, set[str]]:
    """Run a notebook with other parameters. Returns its pages, its number of pictures and its other output."""
    notebook = with_parameters(name, **parameters)
    NotebookClient(notebook, timeout=120, km=kernel, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"] for output in outputs if "data" in output]
    pages = [data.get("text/html", "") + data.get("text/markdown", "") for data in shown]
    pictures = sum("image/png" in data for data in shown)
    return pages, pictures, {line for output in outputs for line in output.get("text", "").splitlines(keepends=True)}


REAL = str(ROOT / "docs/results/store")  # an export
VIEWS = {"SWEEP": "lejepa_lambda_views_mini", "BY": "views.num_global"}
# notebook, store, parameters, text of a page, number of pictures
SHOWN: list[tuple[str, str, dict[str, str], str, int]] = [
    ("sweep_overview", "store", {}, "97.1", 3),  # curves, accuracy against sparsity, and its theory
    ("sweep_overview", REAL, {"SWEEP": "rectified_sparsity_small"}, "38.1 &#177; 0.8", 3),
    ("lejepa_ablations", "papers", {}, "LeJEPA Fig. 8", 6),
    # theory is 0.9 of what was measured
    ("rectified_lpjepa_sparsity", "papers", {}, f"<td>{0.1 * nonzero_of(1.0, 1.0, 0.5):.3f}</td>", 2),
    ("label_free_selection", "papers", {}, "10 finished, 2 failed", 3),
    ("label_free_selection", "papers", VIEWS, "num_global=8: 14 finished, 1 failed", 3),
]


@pytest.mark.parametrize("row", SHOWN)
def test_a_notebook_shows_tables_and_figures_of_any_store(
    row: tuple[str, str, dict[str, str], str, int], kernel: Any, request: pytest.FixtureRequest
) -> None:
    name, store, parameters, text, pictures = row
    uri = store if store == REAL else request.getfixturevalue(store)
    pages, found, printed = executed(name, kernel, STORE=uri, **parameters)
    assert any(text in page for page in pages)
    assert found == pictures
    assert not printed - {"\n"}


FILLS = "python sweeps/{}.py{} fills it"
EXPORTS_IT = "python -m analysis export absent_mini --output {} adds it"


@pytest.mark.parametrize(
    ("name", "parameters", "line"),
    [
        ("sweep_overview", {}, FILLS.format("demo_rectified_lpjepa", "")),
        ("lejepa_ablations", {}, FILLS.format("lejepa_lambda_views", " --scale mini")),
        ("rectified_lpjepa_sparsity", {}, FILLS.format("rectified_sparsity", " --scale mini")),
        ("label_free_selection", {}, FILLS.format("lejepa_label_free", " --scale mini")),
        ("sweep_overview", {"STORE": REAL, "SWEEP": "absent_mini"}, EXPORTS_IT.format(REAL)),
        ("sweep_overview", {"STORE": "sqlite:////nowhere/mlflow.db"}, "python sweeps/demo_lejepa.py creates one"),
        ("lejepa_ablations", {"STORE": REAL, "SCALE": "small"}, ""),
    ],
)
def test_a_notebook_without_its_runs_ends_with_one_line_and_the_command_that_creates_them(
    name: str, parameters: dict[str, str], line: str, kernel: Any, results: Path
) -> None:
    notebook = with_parameters(name, **{"STORE": f"sqlite:///{results / 'mlflow.db'}"} | parameters)
    client = NotebookClient(
        notebook, timeout=120, km=kernel, allow_errors=True, resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    errors = [output["traceback"] for output in outputs if output.output_type == "error"]
    if not line:
        assert errors == []
        return
    assert len(errors[0]) == 1
    assert errors[0][0].endswith(line)
    assert "\n" not in errors[0][0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_analysis_alone_defines_nothing_and_has_no_outputs(path: Path) -> None:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    nodes = [node for cell in code for node in ast.walk(ast.parse(cell.source))]
    imported = {node.module.partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"analysis", "IPython"}
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in nodes)
    assert all((cell.outputs, cell.execution_count) == ([], None) for cell in code)
