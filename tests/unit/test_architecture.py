"""Structure of the packages, read from the source: folders, import directions, cycles, names.

Run: python -m pytest tests/unit/test_architecture.py
"""

import ast
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cache
from graphlib import TopologicalSorter
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


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def nodes(file: Path) -> list[ast.AST]:
    return [*ast.walk(ast.parse(file.read_text()))]


@cache
def imports(file: Path) -> dict[str, str]:
    """Name in a file -> dotted name of what it imports, also inside functions."""
    found: dict[str, str] = {}
    for node in nodes(file):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def used(file: Path) -> set[str]:
    """Dotted names that a file imports or uses: `nn.parallel` after `from torch import nn` is torch.nn.parallel."""
    words = {ast.unparse(node) for node in nodes(file) if isinstance(node, ast.Attribute)}
    split = [word.split(".", 1) for word in words if re.fullmatch(r"[\w.]+", word)]
    return {*imports(file).values()} | {f"{imports(file).get(first, first)}.{rest}" for first, rest in split}


@cache
def graph() -> dict[str, set[str]]:
    """Module -> modules of this repository that it imports; `from package import module` counts as the module."""
    known = {module_of(file): file for package in OURS for file in files(package)}
    found = {module: {_home(name, known) for name in imports(file).values()} for module, file in known.items()}
    return {module: (found[module] & known.keys()) - {module} - LAZY for module in found if module not in LAZY}


def _home(name: str, known: Collection[str]) -> str:
    return name if name in known else name.rpartition(".")[0]


def folders(root: str) -> dict[str, set[str]]:
    """Import graph of a package, with each top-level folder or module as one node."""
    depth, prefix = len(Path(root).parts) + 1, root.replace("/", ".") + "."
    found: dict[str, set[str]] = defaultdict(set)
    for module, targets in graph().items():
        if module.startswith(prefix):
            node = ".".join(module.split(".")[:depth])
            found[node] |= {".".join(name.split(".")[:depth]) for name in targets if name.startswith(prefix)} - {node}
    return dict(found)


def check_no_cycle(edges: Mapping[str, Collection[str]]) -> None:
    TopologicalSorter(edges).prepare()  # CycleError names the modules


def offenders(package: str, forbidden: Collection[str], *, besides: str = "\0") -> list[str]:
    """Files of a package, except those in one place, that use a forbidden module or one below it."""
    inside = tuple(f"{name}." for name in forbidden)
    return [
        f"{name_of(file)} uses {name}"
        for file in files(package)
        if not name_of(file).startswith(besides)
        for name in used(file)
        if f"{name}.".startswith(inside)
    ]


# --- folders


def test_a_folder_has_at_most_twelve_modules():
    counts: dict[str, int] = defaultdict(int)
    for file in (file for package in OURS[:-1] for file in files(package)):
        counts[name_of(file.parent)] += file.stem not in ("__init__", "__main__")
    assert {name for name, count in counts.items() if count > 12} <= REGISTRIES


def test_sweep_files_are_short():
    for file in (ROOT / "sweeps").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, f"{file.name} is longer than 60 lines"


# --- cycles and directions


def test_modules_and_folders_import_each_other_in_no_cycle():
    for edges in (graph(), *map(folders, ("jepa_train", "sweeps/engine", "analysis"))):
        check_no_cycle(edges)


PARALLEL = {"torch.distributed", "torch.nn.parallel", "torch.nn.SyncBatchNorm"}
FOREIGN = {*OURS, "torch", "ray", "optuna", "timm"} - {"analysis"}


@pytest.mark.parametrize(
    ("package", "forbidden", "besides"),
    [
        ("jepa_train", TRACKERS | set(OURS) - {"jepa_train"}, "\0"),
        ("jepa_train", PARALLEL, "jepa_train/distributed/"),
        ("sweeps", PARALLEL | {"benchmarks"}, "\0"),
        ("analysis", FOREIGN, "analysis/optuna_study.py"),
        ("analysis", FOREIGN - {"optuna"}, "\0"),
    ],
)
def test_a_package_imports_nothing_from_above(package: str, forbidden: set[str], besides: str):
    assert offenders(package, forbidden, besides=besides) == []


@pytest.mark.parametrize("library", PRIVATE)
def test_private_parts_of_a_library_are_used_in_one_file(library: str):
    home, private = PRIVATE[library]
    for file in (file for package in OURS for file in files(package)):
        found = {name for name in used(file) if re.match(private, name)}
        assert not found or name_of(file) == home, f"{file} uses {found}"


def test_search_spaces_import_only_domains():
    allowed = ("optuna.distributions", "search_spaces")
    for file in files("search_spaces"):
        assert all(name.startswith(allowed) for name in imports(file).values()), file


# --- names


def test_a_name_is_defined_in_one_module():
    """Classes and public functions; the files of a registry share a protocol (build, draw, compared, sweep, ...)."""
    homes: dict[str, list[str]] = defaultdict(list)
    for file in (file for package in ("jepa_train", "sweeps", "analysis") for file in files(package)):
        if name_of(file.parent) in REGISTRIES and file.stem != "__init__":
            continue
        for node in ast.parse(file.read_text()).body:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
            if named or isinstance(node, ast.ClassDef):
                homes[node.name].append(module_of(file))
    assert {name: where for name, where in homes.items() if len(where) > 1 and name not in SHARED} == {}


def test_methods_and_datasets_are_never_compared_by_name():
    """Shared code uses attributes, never `name == "lejepa"`."""
    methods = {"lejepa", "rectified_lpjepa", "visreg", "kerjepa", "vicreg", "barlow_twins", "simclr", "ncl"}
    names = methods | {"digits", "cifar10", "cifar100", "image_folder", "unlabelled_folder"}
    for file in files("jepa_train") + files("sweeps/engine"):
        for node in (node for node in nodes(file) if isinstance(node, ast.Compare)):
            constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            assert not constants & names, f"{name_of(file)}:{node.lineno}"


@pytest.mark.parametrize("package", [*OURS, "tests"])
def test_docstrings_open_with_a_noun_phrase_or_a_verb(package: str):
    definitions = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for file in files(package):
        for text in (ast.get_docstring(node) or "" for node in nodes(file) if isinstance(node, definitions)):
            assert not re.match(r"(What|Who|Whose|Whether|How|Where|When)\b", text), f"{file}: {text}"


def test_every_test_file_states_how_to_run_it():
    for file in (ROOT / "tests").rglob("test_*.py"):
        assert re.search(r"^Run: .*pytest tests/", ast.get_docstring(ast.parse(file.read_text())) or "", re.M), file
