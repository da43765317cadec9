"""The import rules, read from the source: who may import whom."""

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"jepa_train", "search_spaces", "sweeps", "analysis", "benchmarks"}
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


def attributes(file: Path) -> set[str]:
    """Every attribute that a file takes of what it imports, dotted: `nn.parallel` after `from torch import nn` counts
    as torch.nn.parallel."""
    tree = ast.parse(file.read_text())
    origin: dict[str, str] = {}  # name in the file -> what it stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                bound = alias.name if alias.asname or module else alias.name.partition(".")[0]
                origin[alias.asname or bound] = module + bound
    return {name for node in ast.walk(tree) if (name := _dotted(node, origin))}


def _dotted(node: ast.AST, origin: Mapping[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([origin[node.id], *parts]) if parts and isinstance(node, ast.Name) and node.id in origin else ""


def offenders(package: str, forbidden: set[str], *, besides: set[str] = frozenset()) -> list[str]:
    """The files of a package, but for those named, which use a forbidden module or one below it."""
    return [
        f"{file.relative_to(ROOT)} uses {module}"
        for file in sorted((ROOT / package).rglob("*.py"))
        if str(file.relative_to(ROOT)) not in besides
        for module in sorted(imports(file) | attributes(file))
        if any(module == name or module.startswith(f"{name}.") for name in forbidden)
    ]


def test_training_knows_no_tracker_and_no_other_package():
    assert offenders("jepa_train", TRACKERS | OURS - {"jepa_train"}) == []


def test_only_the_folder_distributed_speaks_to_torch_distributed():
    spoken = {"torch.distributed", "torch.nn.parallel", "torch.nn.SyncBatchNorm"}
    speakers = {"jepa_train/distributed/collectives.py", "jepa_train/distributed/torch_private.py"}
    assert offenders("jepa_train", spoken, besides=speakers) == []
    assert offenders("sweeps", spoken) == []


# library -> the file that alone may use its private parts: names with an underscore, and modules that are internal
PRIVATE = {
    "torch": ("jepa_train/distributed/torch_private.py", r"torch\..*\b_(?!_)"),
    "ray": ("sweeps/engine/cluster/ray_private.py", r"ray\.(.*\b_(?!_)|core\.|train\.v2\.|tune\.execution\.)"),
    "optuna": ("sweeps/engine/search/optuna_private.py", r"optuna\..*\b_(?!_)"),
    "mlflow": ("", r"mlflow\..*\b_(?!_)"),
}


@pytest.mark.parametrize("library", PRIVATE)
def test_private_parts_of_a_library_are_used_in_one_file(library: str):
    home, private = PRIVATE[library]
    for file in (file for package in OURS for file in (ROOT / package).rglob("*.py")):
        found = {name for name in imports(file) | attributes(file) if re.match(private, name)}
        assert not found or str(file.relative_to(ROOT)) == home, f"{file} uses {found}"


def test_search_spaces_hold_nothing_but_domains():
    allowed = {"optuna.distributions", "search_spaces"}
    for file in (ROOT / "search_spaces").rglob("*.py"):
        assert {name for name in imports(file) if not any(name.startswith(ok) for ok in allowed)} == set(), file


def test_analysis_reads_the_store_and_nothing_of_ours():
    forbidden = (OURS | {"torch", "ray", "optuna", "timm"}) - {"analysis"}
    assert offenders("analysis", forbidden, besides={"analysis/figures/study.py"}) == []
    assert offenders("analysis/figures", forbidden - {"optuna"}) == []  # study.py asks Optuna for importances


def test_benchmarks_run_where_training_does():
    allowed = {"benchmarks", "jepa_train", "torch", "torchvision", "numpy", "PIL", *sys.stdlib_module_names}
    # what measures sweeps may use besides
    engine = {"sweeps", "analysis", "mlflow", "optuna", "ray", "matplotlib", "psutil"}
    of_sweeps = {"scale.py", "filled_store.py", "overhead.py", "simulation.py", "economy.py", "curves.py"}
    of_sweeps |= {"chaos.py", "peace.py", "head.py", "head_lanes.py", "head_store.py"}
    for file in (ROOT / "benchmarks").rglob("*.py"):
        here = allowed | engine if file.name in of_sweeps else allowed
        assert {name for name in imports(file) if name.partition(".")[0] not in here} == set(), file
    assert offenders("sweeps", {"benchmarks"}) == []


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("import torch\ntorch.distributed.all_reduce(x)", "torch.distributed.all_reduce"),
        (
            "import torch\nclass A:\n    def f(self):\n        return torch.nn.SyncBatchNorm(3).eval()",
            "torch.nn.SyncBatchNorm",
        ),
        ("import torch.nn\ntorch.nn.parallel.replicate", "torch.nn.parallel.replicate"),
        ("import torch.nn as layers\nlayers.parallel.replicate", "torch.nn.parallel.replicate"),
        ("from torch import nn as layers\nlayers.SyncBatchNorm", "torch.nn.SyncBatchNorm"),
    ],
)
def test_a_module_is_found_by_whatever_name_a_file_gives_it(source: str, used: str, tmp_path: Path):
    (tmp_path / "file.py").write_text(source)
    assert used in attributes(tmp_path / "file.py")


def test_a_variable_is_no_module(tmp_path: Path):
    (tmp_path / "file.py").write_text("import numpy\ntorch.distributed\nx.numpy.distributed")
    assert attributes(tmp_path / "file.py") == set()


def test_sweep_files_are_short():
    for file in (ROOT / "sweeps").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, f"{file.name} is doing the engine's job"


@pytest.mark.parametrize("package", sorted(OURS | {"tests"}))
def test_no_file_is_a_drawer(package: str):
    drawers = {"utils", "common", "helpers", "misc"}
    assert [file for file in (ROOT / package).rglob("*.py") if file.stem in drawers] == []


def test_methods_and_datasets_are_never_compared_by_name():
    """Shared code asks the value, never `name == "lejepa"`."""
    names = {"lejepa", "rectified_lpjepa", "vicreg", "simclr", "ncl", "digits", "cifar10", "cifar100", "image_folder"}
    for file in sorted((ROOT / "jepa_train").rglob("*.py")) + sorted((ROOT / "sweeps/engine").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare):
                constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not constants & names, f"{file.relative_to(ROOT)}:{node.lineno}"
