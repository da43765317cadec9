"""Code versions: which edits change the version of which cell, in a copy of the package; and git's answers.

Run: python -m pytest tests/unit/store/test_code_version.py
"""

import ast
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from jepa_train.base import checkout
from jepa_train.base.errors import ConfigError
from jepa_train.methods import METHODS
from sweeps.engine.store import code_version
from sweeps.engine.store.code_version import NO_NUMBERS, Code, code_of
from sweeps.engine.store.provenance import GitState, git_state

ROOT = Path(__file__).parents[3]
MINE = '''"""A method of a user's own."""
from dataclasses import dataclass
from beside import SCALE
from jepa_train.methods.base import Step
from jepa_train.methods.vicreg import VICReg
POWER = 2
def power(z): return z ** POWER
@dataclass(frozen=True, kw_only=True)
class Mine(VICReg):
    name = "power_loss.Mine"
    def __call__(self, z, step: Step): return SCALE * power(z).sum(), {}
'''


def of(method: str = "lejepa", data: str = "digits", transfer: str = "") -> Code:
    code_version._code.cache_clear()
    return code_of({"method": method, "data.name": data, "probe.transfer": transfer})


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package without a repository, as a ZIP file or a container holds it, that counts as the code."""
    shutil.copytree(ROOT / "jepa_train", tmp_path / "jepa_train", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(checkout, "PROJECT", tmp_path)
    yield tmp_path
    code_version._code.cache_clear()


def append(text: str) -> Callable[[str], str]:
    return lambda source: source + text


def without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) and node.body[1:]:
            node.body.pop(0)
    return ast.unparse(tree)


EDITS: dict[str, tuple[str, Callable[[str], str], dict[tuple[str, ...], bool]]] = {  # file, edit -> cell -> changed
    "comment": ("train/trainer.py", append("# a comment\n"), {("lejepa",): False}),
    "line ends": ("train/trainer.py", lambda source: source.replace("\n", "\r\n"), {("lejepa",): False}),
    "docstrings and layout": ("methods/lejepa.py", without_docstrings, {("lejepa",): False}),
    "message": ("base/errors.py", append("WORDS = 1\n"), {("lejepa",): False}),
    "step": ("train/trainer.py", append("FACTOR = 2\n"), {("lejepa",): True, ("vicreg", "cifar10"): True}),
    "import inside a function": ("model/network.py", append("X = 1\n"), {("lejepa",): True}),
    "method": ("methods/lejepa.py", append("X = 1\n"), {("lejepa",): True, ("vicreg",): False}),
    "method in a method": ("methods/simclr.py", append("X = 1\n"), {("ncl",): True, ("vicreg",): False}),
    "loss": ("losses/ecf.py", append("X = 1\n"), {("lejepa",): True, ("vicreg",): False}),
    "data source": ("data/digits.py", append("X = 1\n"), {("vicreg",): True, ("vicreg", "cifar10"): False}),
    "transfer set": (
        "data/cifar.py",
        append("X = 1\n"),
        {("lejepa", "digits", "cifar100"): True, ("lejepa", "digits", "digits_0_4"): False, ("lejepa",): False},
    ),
    "transfer folder": ("data/image_folder.py", append("X = 1\n"), {("lejepa", "digits", "dtd=/dtd"): True}),
    "decoder": (
        "data/files/decode.py",
        append("X = 1\n"),
        {("lejepa",): False, ("lejepa", "image_folder"): True, ("lejepa", "digits", "dtd=/dtd"): True},
    ),
    "method added": ("methods/__init__.py", append("from jepa_train.methods import extra\n"), {("lejepa",): False}),
    "data set added": ("data/__init__.py", append("DATASETS['x'] = digits.DIGITS\n"), {("lejepa",): False}),
    "its name": ("config/names.py", append("DATASET_NAMES += ('x',)\n"), {("lejepa",): False}),
    "its metric": ("evaluation/glossary.py", append("GLOSSARY['x'] = 'x'\n"), {("lejepa",): False}),
}


@pytest.mark.parametrize(("file", "edit", "cells"), EDITS.values(), ids=EDITS)
def test_an_edit_changes_the_version_of_the_cells_whose_numbers_pass_through_it(
    copy: Path, file: str, edit: Callable[[str], str], cells: dict[tuple[str, ...], bool]
) -> None:
    path = copy / "jepa_train" / file
    before = {cell: of(*cell).version for cell in cells}
    path.write_bytes(edit(path.read_text()).encode())
    assert {cell: of(*cell).version != version for cell, version in before.items()} == cells


def test_the_same_files_have_the_same_version_in_every_place(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = of().version
    monkeypatch.setattr(checkout, "PROJECT", ROOT)
    assert of().version == version
    assert len(version) == 16
    assert of().own == "jepa_train.data.digits jepa_train.methods.lejepa"
    assert all(file.is_relative_to(ROOT / "jepa_train") for file in of().files)
    assert copy not in of().files


def test_a_recorded_cell_of_names_that_are_gone_has_a_version() -> None:
    assert len(of("gone", "gone", "gone").version) == 16


def test_the_packages_that_compute_count_by_their_public_version(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torch": "2.11.0+cpu", "timm": "1.0.0", "numpy": "2.1", "scipy": "1.15", "pyarrow": "21"}
    monkeypatch.setattr(code_version, "version_of", lambda name: installed[name])
    before = of().version
    installed |= {"torch": "2.11.0+cu128", "pyarrow": "22"}
    assert of().version == before
    for name in ("torch", "timm", "numpy"):
        changed = {name: "99"}
        monkeypatch.setattr(code_version, "version_of", lambda package, new=changed: (installed | new)[package])
        assert of().version != before, name


def test_the_syntax_tree_is_the_same_text_for_every_version_of_python() -> None:
    tree = ast.parse('def f(x: int = None):\n    """Doc."""\n    return u"a"\n').body
    assert code_version._text(tree) == (
        "[FunctionDef(name='f',args=arguments(args=[arg(arg='x',annotation=Name(id='int',ctx=Load()))],"
        "defaults=[Constant()]),body=[Return(value=Constant(value='a'))])]"
    )


def test_no_module_that_is_left_out_computes_results() -> None:
    machine = "jepa_train.base.system_metrics"  # memory and load, which are no results
    for name in NO_NUMBERS - {machine}:
        statements = ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text()).body
        tops = {imported.partition(".")[0] for imported in code_version._imports(statements)}
        assert not tops & {"torch", "numpy", "timm", "sklearn", "scipy"}, name


def test_a_method_outside_the_package_counts_with_its_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, beside = tmp_path / "power_loss.py", tmp_path / "beside.py"
    file.write_text(MINE)
    beside.write_text("import torch, einops\nSCALE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(code_version, "version_of", lambda name: {"einops": "1"}.get(name, "0"))
    monkeypatch.setitem(sys.modules, "einops", ModuleType("einops"))
    monkeypatch.setitem(METHODS, "power_loss.Mine", importlib.import_module("power_loss").Mine)
    before = of("power_loss.Mine")
    assert before.own == "jepa_train.data.digits power_loss"
    assert {file, beside} < {*before.files}
    file.write_text(MINE.replace("\nPOWER", "\n\n# more\nPOWER"))
    assert of("power_loss.Mine").version == before.version
    for path, old, new in ((file, "POWER = 2", "POWER = 3"), (beside, "3", "4"), (file, "SCALE *", "2 * SCALE *")):
        text = path.read_text()
        path.write_text(text.replace(old, new))
        assert of("power_loss.Mine").version != before.version, new
        path.write_text(text)
    monkeypatch.setattr(code_version, "version_of", lambda name: {"einops": "2"}.get(name, "0"))
    assert of("power_loss.Mine").version != before.version, "a package that only the method uses"


# --- git, for information


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("jepa_train/loss.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one\n")
    git(tmp_path, "init", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    return tmp_path


def answers(root: Path, *names: str) -> GitState:
    git_state.cache_clear()
    return git_state(root, tuple(root / name for name in names))


def test_git_tells_commit_branch_and_the_difference_of_the_modules(repository: Path) -> None:
    clean = answers(repository, "jepa_train/loss.py")
    assert (len(clean.commit), clean.branch, clean.dirty, clean.patch_file) == (40, "main", "false", {})
    (repository / "README.md").write_text("two\n")
    (repository / "sweep.py").write_text("a sweep\n")
    assert answers(repository, "jepa_train/loss.py") == clean, "other files do not make a run dirty"
    (repository / "jepa_train/loss.py").write_text("two\n")
    (repository / "jepa_train/mine.py").write_text("three\n")
    (repository / ".gitignore").write_text("mine.py\n")
    edited = answers(repository, "jepa_train/loss.py", "jepa_train/mine.py")
    assert edited.dirty == "true"
    ((name, text),) = edited.patch_file.items()
    assert name.startswith("uncommitted-")
    for line in ("-one\n+two\n", "not in git: jepa_train/mine.py\nthree\n"):
        assert line in text


@pytest.mark.parametrize("case", ["a wheel in another repository", "no git", "no repository", "no commit"])
def test_a_question_that_git_cannot_answer_is_unknown(
    case: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository
    if case == "no git":
        monkeypatch.setenv("PATH", "/nowhere")
    elif case == "a wheel in another repository":
        root = repository / "site-packages"
        shutil.copytree(repository / "jepa_train", root / "jepa_train")
    else:
        shutil.rmtree(repository / ".git")
    if case == "no commit":
        git(repository, "init")
    assert answers(root, "jepa_train/loss.py") == GitState()


def test_a_file_outside_the_repository_leaves_dirty_unknown(repository: Path) -> None:
    state = answers(repository, "jepa_train/loss.py", "/elsewhere/mine.py")
    assert (state.dirty, len(state.commit)) == ("unknown", 40)


# --- two checkouts


def test_a_sweep_file_of_another_checkout_is_refused(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "jepa_train/__init__.py", "sweeps/study.py", ".venv/pyvenv.cfg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"^study.py must run with the code of its own checkout, .*; set PYTHONPATH="):
        checkout.check_checkout(tmp_path / "sweeps/study.py")
    for file in (ROOT / "sweeps/demo_lejepa.py", tmp_path.parent / "study.py", tmp_path / ".venv/bin/pytest"):
        checkout.check_checkout(file)
