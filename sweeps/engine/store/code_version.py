"""Version of the code behind a result: a hash of the modules that its numbers pass through, without asking git.

The hash covers the syntax trees of the training loop and of all that it imports, without docstrings and comments, those
of the cell's own method, data source and encoder, and the versions of the packages that compute. The same files give
the same version in a checkout, a container, an installed wheel and on a node of a cluster.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from jepa_train.base import checkout
from jepa_train.base.errors import ConfigError
from jepa_train.data import DATASETS
from jepa_train.methods import METHODS
from jepa_train.model.own_encoder import is_dotted, source_file
from sweeps.engine.store.provenance import version_of

_ENTRY = "jepa_train.train.loop"
_PACKAGES = ("jepa_train", "search_spaces", "sweeps", "analysis")
_REGISTRIES = {"jepa_train.methods", "jepa_train.data"}  # they import every method; a cell's numbers pass through one
# Names, messages, files and processes: no number is computed there, and a test checks that none imports torch.
NO_NUMBERS = {
    *(f"jepa_train.base.{name}" for name in ("allocator", "checkout", "errors", "preemption")),
    *(f"jepa_train.base.{name}" for name in ("security", "system_metrics")),
    *("jepa_train.config.names", "jepa_train.evaluation.glossary"),
    *("jepa_train.storage.paths", "jepa_train.storage.storage"),
}
# do not compute; torch decides triton's version
_TOOLS = {"filelock", "psutil", "pyarrow", "rich", "safetensors", "triton"}
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # import name -> package; the others are asked, slowly


@dataclass(frozen=True)
class Code:
    """The code that a cell's numbers pass through.

    Args:
        version: hash of all of it, 16 hex digits.
        own: the modules of the cell's method, data sources and encoder, or its package; cells of the same ones share
            their code.
        files: of all modules in the hash.
    """

    version: str
    own: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Module:
    """A module in the hash.

    Args:
        beside: folder of a file outside the project, which may import others there.
    """

    name: str
    file: Path
    beside: Path | None = None


def code_of(fields: Mapping[str, Any]) -> Code:
    """The present code of a cell, by its flat config or its logged parameters."""
    return _code(*(str(fields.get(key, "")) for key in ("method", "data.name", "probe.transfer", "model.encoder")))


@cache
def _code(method: str, data: str, transfer: str, encoder: str) -> Code:
    others = [word.partition("=")[0].strip() for word in transfer.split(",") if word.strip()]
    sets = [data, *(name if name in DATASETS else "image_folder" for name in others)]
    rows: list[Any] = [METHODS.get(method), *(DATASETS[name].load for name in sets if name in DATASETS)]
    modules, packages_of_encoder = _code_of_encoder(encoder)
    own = dict.fromkeys([*(_module_of(row) for row in rows if row is not None), *modules])
    trees, packages = _closure([*own, _in_project(_ENTRY)])
    packages |= packages_of_encoder
    lines = [*sorted(trees.values()), *sorted(f"{name} {_public_version(name)}" for name in packages)]
    version = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    names = sorted([*(module.name for module in own), *packages_of_encoder])
    return Code(version, " ".join(names), tuple(sorted(trees)))


def _module_of(row: Any) -> _Module:
    """Module of a method's class or of a data set's function, inside the project or outside."""
    while isinstance(row, partial):
        row = row.func
    if row.__module__.startswith("jepa_train."):
        return _in_project(row.__module__)
    return _own_module(row.__module__, Path(str(sys.modules[row.__module__].__file__)).resolve())


def _own_module(name: str, file: Path) -> _Module:
    depth = name.count(".") + (file.name == "__init__.py")
    return _Module(name, file, file.parents[depth])


def _code_of_encoder(encoder: str) -> tuple[list[_Module], set[str]]:
    """Module of an encoder of the user's own, or its package if that is installed; timm is counted anyway."""
    try:
        file = source_file(encoder)
    except (ConfigError, ImportError):  # recorded, and gone since
        return [], set()
    if file is None or "site-packages" in file.parts:
        return [], {encoder.partition(".")[0]} if is_dotted(encoder) else set()
    return [_own_module(encoder.rpartition(".")[0], file)], set()


def _in_project(name: str) -> _Module:
    file = _file(checkout.PROJECT, name)
    assert file is not None, f"the source of {name} is not installed"
    return _Module(name, file)


def _closure(start: Iterable[_Module]) -> tuple[dict[Path, str], set[str]]:
    """These modules and all that they import, as text by file, and the packages of others that they use."""
    trees: dict[Path, str] = {}
    packages: set[str] = set()
    left = [*start]
    while left:
        module = left.pop()
        if module.file in trees or module.name in _REGISTRIES | NO_NUMBERS:
            continue
        text, imports = _parsed(module.file.read_bytes())
        trees[module.file] = f"{module.name} {text}"
        for name in imports:
            found = _modules(name, module.beside)
            left += found
            top = name.partition(".")[0]
            if not found and top not in {*sys.stdlib_module_names, *_TOOLS, *_PACKAGES}:
                packages.add(top)
    return trees, packages


def _modules(name: str, beside: Path | None) -> list[_Module]:
    """The modules that an import reads, of the project or beside a file outside it: "a.b.c" reads a and a.b, too."""
    parts = name.split(".")
    if parts[0] in _PACKAGES:
        root, beside = checkout.PROJECT, None
    elif beside is None or beside.name == "site-packages":
        return []
    else:
        root = beside
    names = [".".join(parts[: number + 1]) for number in range(len(parts))]
    found = [(each, _file(root, each)) for each in names]
    return [_Module(each, file, beside) for each, file in found if file is not None]


def _file(root: Path, name: str) -> Path | None:
    path = root.joinpath(*name.split("."))
    return next((file for file in (path.parent / f"{path.name}.py", path / "__init__.py") if file.is_file()), None)


def _imports(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """Dotted names that statements import, also inside functions."""
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (".".join(filter(None, [node.module, alias.name])) for alias in node.names)


@cache
def _parsed(source: bytes) -> tuple[str, tuple[str, ...]]:
    """The statements of a module as text, and what they import."""
    statements = ast.parse(source).body
    return _text(statements), tuple(dict.fromkeys(_imports(statements)))


def _text(node: Any) -> str:
    """A syntax tree as text, without docstrings and positions; equal for all versions of Python, unlike ast.dump."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind")
        return f"{type(node).__name__}({','.join(f'{name}={_text(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(_text(each) for each in node if not _is_docstring(each))}]"
    return repr(node)


def _is_docstring(node: Any) -> bool:
    text = node.value if isinstance(node, ast.Expr) else None
    return isinstance(text, ast.Constant) and isinstance(text.value, str)


def _public_version(package: str) -> str:
    """Version of the package that an import reads, without a label of its build, as "+cpu" and "+cu128"."""
    version = version_of(_DISTRIBUTIONS.get(package, package))
    if version == "not installed":
        version = ",".join(map(version_of, sorted({*packages_distributions().get(package, ())})))
    return version.partition("+")[0]
