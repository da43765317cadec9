"""The import rules, read from the source: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"jepa_train", "search_spaces", "sweeps", "analysis"}
TRACKERS = {"ray", "mlflow", "optuna"}


def imports(file: Path) -> set[str]:
    """Every module that a file imports, inside functions too, dotted; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offenders(package: str, forbidden: set[str], *, besides: set[str] = frozenset()) -> list[str]:
    """The files of a package, but for those named, which import a forbidden module or one below it."""
    return [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in sorted((ROOT / package).rglob("*.py"))
        if str(file.relative_to(ROOT)) not in besides
        for module in sorted(imports(file))
        if any(module == name or module.startswith(f"{name}.") for name in forbidden)
    ]


def test_training_knows_no_tracker_and_no_ray_outside_the_worker():
    assert offenders("jepa_train", TRACKERS, besides={"jepa_train/ray_worker.py"}) == []
    assert offenders("jepa_train", TRACKERS - {"ray"}) == []
    assert offenders("jepa_train", OURS - {"jepa_train"}) == []


def test_only_one_file_speaks_to_torch_distributed():
    spoken = {"torch.distributed", "torch.nn.parallel", "torch.nn.SyncBatchNorm"}
    assert offenders("jepa_train", spoken, besides={"jepa_train/distributed.py"}) == []
    assert offenders("sweeps", spoken) == []


def test_search_spaces_hold_nothing_but_domains():
    allowed = {"optuna.distributions", "search_spaces"}
    for file in (ROOT / "search_spaces").rglob("*.py"):
        assert {name for name in imports(file) if not any(name.startswith(ok) for ok in allowed)} == set(), file


def test_analysis_reads_the_store_and_nothing_of_ours():
    assert offenders("analysis", (OURS | {"torch", "ray", "optuna", "timm"}) - {"analysis"}) == []


def test_sweeps_reach_analysis_in_one_place():
    assert offenders("sweeps", {"analysis"}, besides={"sweeps/engine/launch.py"}) == []


def test_sweep_files_are_short():
    for file in (ROOT / "sweeps").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, f"{file.name} is doing the engine's job"


@pytest.mark.parametrize("package", sorted(OURS | {"tests"}))
def test_no_file_is_a_drawer(package: str):
    drawers = {"utils", "common", "helpers", "misc"}
    assert [file for file in (ROOT / package).rglob("*.py") if file.stem in drawers] == []


def test_methods_and_datasets_are_never_compared_by_name():
    """Shared code asks the value, never `name == "lejepa"`."""
    names = {"lejepa", "rectified_lpjepa", "digits", "cifar10", "cifar100", "image_folder"}
    for file in sorted((ROOT / "jepa_train").rglob("*.py")) + sorted((ROOT / "sweeps/engine").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare):
                constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not constants & names, f"{file.relative_to(ROOT)}:{node.lineno}"
