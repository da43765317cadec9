"""Module list of docs/architecture.md, generated from docstrings.

Run: python -m pytest tests/unit/test_module_list.py
Renew the list: python tests/unit/test_module_list.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: begin -->\n", "<!-- modules: end -->\n"
PACKAGES = ("jepa_train", "search_spaces", "sweeps", "analysis", "benchmarks")


def first_line(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]


def module_list() -> str:
    """Headings of folders and entries of modules, with the first line of each docstring."""
    lines: list[str] = []
    for package in PACKAGES:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            lines += ["", f"### `{init.parent.relative_to(ROOT)}/`", "", first_line(init), ""]
            modules = sorted(file for file in init.parent.glob("*.py") if file.name != "__init__.py")
            lines += [f"- `{file.name}`: {first_line(file)}" for file in modules]
    return "\n".join([*lines, "", ""])


def page_with_list() -> str:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + module_list() + END + rest.partition(END)[2]


def test_the_module_list_is_current():
    assert PAGE.read_text() == page_with_list(), "run python tests/unit/test_module_list.py"


def test_every_module_and_folder_has_a_docstring():
    silent = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py") if not first_line(file)]
    assert silent == []


if __name__ == "__main__":
    PAGE.write_text(page_with_list())
