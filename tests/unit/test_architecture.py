"""Structure of the packages, read from the source: folders, import directions, cycles, names.

Run: python -m pytest tests/unit/test_architecture.py
"""

import ast
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("jepa_train", "search_spaces", "sweeps", "analysis", "benchmarks")
TRACKERS = {"ray", "mlflow", "optuna"}
REGISTRIES = {"sweeps", "analysis/tables", "analysis/figures"}  # one file per study, table, figure
LAZY = {"sweeps.engine"}  # its __init__ imports nothing until a name is asked for
SHARED = {"main"}  # functions that several modules may define
# library -> the only file that may use its private names and internal modules, and their pattern
PRIVATE = {
    "torch": ("jepa_train/distributed/torch_private.py", r"torch\..*\b_(?!_)"),
    "ray": ("sweeps/engine/cluster/ray_private.py", r"ray\.(.*\b_(?!_)|core\.|train\.v2\.|tune\.execution\.)"),
    "optuna": ("", r"optuna\..*\b_(?!_)"),
    "mlflow": ("", r"mlflow\..*\b_(?!_)"),
}
LIMITS = {"jepa_train": (14, 11), "sweeps/engine": (10, 8), "analysis": (12, 7)}  # top-level entries, import levels


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, also inside functions; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def graph() -> dict[str, set[str]]:
    """Module -> modules of this repository that it imports; `from package import module` counts as the module."""
    known = {module_of(file): file for package in OURS for file in files(package)}
    found: dict[str, set[str]] = {}
    for module, file in known.items():
        named = imports(file) & known.keys()
        inner = {name.rpartition(".")[0] for name in named if name.rpartition(".")[0] in named}
        taken = {name for name in named if name not in inner or _takes_a_name(file, name, known)}
        found[module] = taken - {module} - LAZY
    return {module: used for module, used in found.items() if module not in LAZY}


def _takes_a_name(file: Path, package: str, known: Collection[str]) -> bool:
    """Return True if a file imports something other than a submodule from a package."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == package
        and any(f"{package}.{alias.name}" not in known for alias in node.names)
        for node in ast.walk(ast.parse(file.read_text()))
    )


def cycles(edges: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen, stack = set(), [*edges[start]]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack += edges.get(node, ())
        reach[start] = seen
    found = {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in edges if a in reach[a]}
    return [list(group) for group in sorted(found)]


def folders(root: str) -> dict[str, set[str]]:
    """Import graph of a package, with each top-level folder or module as one node."""
    depth = len(Path(root).parts) + 1
    prefix = root.replace("/", ".") + "."
    found: dict[str, set[str]] = defaultdict(set)
    for module, used in graph().items():
        if not module.startswith(prefix):
            continue
        node = ".".join(module.split(".")[:depth])
        found[node] |= {".".join(name.split(".")[:depth]) for name in used if name.startswith(prefix)} - {node}
    return dict(found)


def levels(edges: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Node -> import level: 1 without imports, else one more than the highest imported level."""

    @cache
    def level(node: str) -> int:
        return 1 + max((level(used) for used in edges.get(node, ())), default=0)

    return {node: level(node) for node in edges}


def attributes(file: Path) -> set[str]:
    """Dotted attributes of imported modules that a file uses: `nn.parallel` after `from torch import nn` counts as
    torch.nn.parallel."""
    tree = ast.parse(file.read_text())
    origin: dict[str, str] = {}  # name in the file -> dotted name
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


def offenders(package: str, forbidden: Collection[str], *, besides: Collection[str] = ()) -> list[str]:
    """Files of a package, except those named, that use a forbidden module or one below it."""
    return [
        f"{file.relative_to(ROOT)} uses {module}"
        for file in files(package)
        if not str(file.relative_to(ROOT)).startswith(tuple(besides) or ("\0",))
        for module in sorted(imports(file) | attributes(file))
        if any(module == name or module.startswith(f"{name}.") for name in forbidden)
    ]


# --- folders


def test_a_folder_has_at_most_twelve_modules():
    crowded = {}
    for package in OURS:
        for folder in {file.parent for file in files(package)}:
            name = str(folder.relative_to(ROOT))
            modules = [file for file in folder.glob("*.py") if file.stem not in ("__init__", "__main__")]
            if name not in REGISTRIES and package != "benchmarks" and len(modules) > 12:
                crowded[name] = len(modules)
    assert crowded == {}


@pytest.mark.parametrize("root", LIMITS)
def test_a_package_has_few_entries_and_few_import_levels(root: str):
    entries, height = LIMITS[root]
    edges = folders(root)
    names = {node for node in edges if not node.endswith(".__main__")}
    assert len(names) <= entries, sorted(names)
    assert max(levels(edges).values()) <= height, levels(edges)


def test_sweep_files_are_short():
    for file in (ROOT / "sweeps").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, f"{file.name} is longer than 60 lines"


# --- cycles and directions


def test_modules_import_each_other_in_no_cycle():
    assert cycles(graph()) == []


@pytest.mark.parametrize("root", LIMITS)
def test_folders_import_each_other_in_no_cycle(root: str):
    assert cycles(folders(root)) == []


def test_jepa_train_imports_no_tracker_and_no_ray():
    assert offenders("jepa_train", TRACKERS | set(OURS) - {"jepa_train"}) == []


def test_only_one_folder_uses_torch_distributed():
    parts = {"torch.distributed", "torch.nn.parallel", "torch.nn.SyncBatchNorm"}
    assert offenders("jepa_train", parts, besides={"jepa_train/distributed/"}) == []
    assert offenders("sweeps", parts) == []


@pytest.mark.parametrize("library", PRIVATE)
def test_private_parts_of_a_library_are_used_in_one_file(library: str):
    home, private = PRIVATE[library]
    for file in (file for package in OURS for file in (ROOT / package).rglob("*.py")):
        found = {name for name in imports(file) | attributes(file) if re.match(private, name)}
        assert not found or str(file.relative_to(ROOT)) == home, f"{file} uses {found}"


def test_sweeps_import_no_benchmark():
    assert offenders("sweeps", {"benchmarks"}) == []


def test_search_spaces_import_only_domains():
    allowed = ("optuna.distributions", "search_spaces")
    for file in files("search_spaces"):
        assert {name for name in imports(file) if not name.startswith(allowed)} == set(), file


def test_analysis_imports_no_other_package_and_no_torch():
    forbidden = {*OURS, "torch", "ray", "optuna", "timm"} - {"analysis"}
    importances = "analysis/figures/study.py"  # imports Optuna
    assert offenders("analysis", forbidden, besides={importances}) == []
    assert offenders("analysis/figures", forbidden - {"optuna"}) == []


# --- names


def test_a_name_is_defined_in_one_module():
    """Classes and public functions; the files of a registry share a protocol (build, draw, compared, sweep, ...)."""
    homes: dict[str, list[str]] = defaultdict(list)
    for package in set(OURS) - {"benchmarks", "search_spaces"}:
        for file in files(package):
            if str(file.parent.relative_to(ROOT)) in REGISTRIES and file.stem != "__init__":
                continue
            for node in ast.parse(file.read_text()).body:
                named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
                if named or isinstance(node, ast.ClassDef):
                    homes[node.name].append(module_of(file))
    assert {name: where for name, where in homes.items() if len(where) > 1 and name not in SHARED} == {}


def test_methods_and_datasets_are_never_compared_by_name():
    """Shared code uses attributes, never `name == "lejepa"`."""
    names = {"lejepa", "rectified_lpjepa", "vicreg", "simclr", "ncl", "digits", "cifar10", "cifar100", "image_folder"}
    for file in files("jepa_train") + files("sweeps/engine"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare):
                constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not constants & names, f"{file.relative_to(ROOT)}:{node.lineno}"


@pytest.mark.parametrize("package", [*OURS, "tests"])
def test_docstrings_open_with_a_noun_phrase_or_a_verb(package: str):
    definitions = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    opened = [
        f"{file.relative_to(ROOT)}: {text.partition(chr(10))[0]}"
        for file in files(package)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, definitions) and (text := ast.get_docstring(node))
        if re.match(r"(What|Who|Whose|Whether|How|Where|When)\b", text)
    ]
    assert opened == []


def test_every_test_file_states_how_to_run_it():
    for file in files("tests"):
        if file.stem.startswith("test_"):
            assert re.search(r"^Run: .*pytest tests/", ast.get_docstring(ast.parse(file.read_text())) or "", re.M), file
