"""Pages of the documentation: length, links, numbers, and examples of every field of a sweep.

Run: python -m pytest tests/unit/test_pages.py
"""

import dataclasses
import re
from pathlib import Path

import pytest

from sweeps.engine import Sweep

ROOT = Path(__file__).parents[2]
PAGES = {file.relative_to(ROOT).as_posix(): file.read_text() for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}
README, SWEEPS_PAGE = PAGES["README.md"], PAGES["docs/sweeps.md"]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200
    assert max(map(len, README.splitlines())) <= 120


def test_links_lead_to_files() -> None:
    for page, text in PAGES.items():
        targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
        assert [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()] == [], page


def test_the_benchmarks_shown_are_the_recorded_ones() -> None:
    shown = PAGES["docs/performance.md"].split("<!-- benchmarks -->")[1].split("<!-- end of benchmarks -->")[0]
    recorded = (ROOT / "benchmarks/results/amd-epyc-2-cores.md").read_text()
    cells = [{cell.strip() for cell in line.split("|")} for line in recorded.splitlines() if line.startswith("|")]
    rows = [{cell.strip() for cell in line.split("|")} for line in shown.splitlines() if re.match(r"\| .*\d", line)]
    assert len(rows) > 20
    assert all(any(row <= recorded_row for recorded_row in cells) for row in rows if "points" not in row)


def test_the_sweep_page_shows_the_file_and_an_example_of_every_field() -> None:
    file, *examples = re.findall(r"```python\n(.*?)```", SWEEPS_PAGE, flags=re.DOTALL)
    assert file.strip() == (ROOT / "sweeps/demo_rectified_lpjepa.py").read_text().strip()
    names: dict[str, object] = {}
    for example in examples:
        exec(example, names)  # each raises where a field is refused
    headings = " ".join(re.findall(r"^### (.+)$", SWEEPS_PAGE, flags=re.MULTILINE))
    assert [field.name for field in dataclasses.fields(Sweep) if f"`{field.name}`" not in headings] == []
    with pytest.raises(ValueError, match=r"method\.lamda is not a field") as refused:
        exec(examples[1].replace("purpose", 'grid={"method.lamda": [0.1]}, purpose'), names)
    assert f"error: {refused.value}" in SWEEPS_PAGE
