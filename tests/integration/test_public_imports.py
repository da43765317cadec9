"""Public import paths, from a folder outside the checkout, and the packages in a built wheel.

Run: python -m pytest tests/integration/test_public_imports.py
"""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
from analysis.figures import pictures
from analysis.figures.style import panels, series
from analysis.runs import NothingToShow, has_runs, load_histories, load_history, load_runs, store_uri, sweeps_in
from analysis.tables import find_table, table
from jepa_train.config import DataConfig, ModelConfig, OptimConfig, ProbeConfig, TrainConfig, ViewsConfig
from jepa_train.flat import cell_key, flatten, unflatten
from jepa_train.methods import METHODS, LeJEPA, RectifiedLpJEPA
from jepa_train.presets import DIGITS, PRESETS
from jepa_train.scales import LEJEPA, SCALES, SEEDS, Scale
from jepa_train.train import evaluate_checkpoint, train
from search_spaces.lejepa import SPACE
from sweeps.engine import Asha, BestOf, LabelFree, Sweep, main
import jepa_train.config.presets
assert jepa_train.presets.DIGITS is jepa_train.config.presets.DIGITS
"""


def test_public_paths_work_from_a_users_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_on_architecture_lists_what_is_tested_here() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = page[page.index("## Public imports") : page.index("## Modules")]
    for module in re.findall(r"^from (\S+) import", SCRIPT, flags=re.MULTILINE):
        assert f"`{module}`" in listed or f"`{module.partition('.')[0]}.*`" in listed, module


@pytest.mark.slow
def test_a_wheel_holds_every_folder_and_the_papers_numbers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "source"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        if (ROOT / name).is_file() and not name.startswith(("docs/results/", "tests/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(copy)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    packages = ("jepa_train", "search_spaces", "sweeps", "analysis", "benchmarks")
    source = {name for name in files if name.startswith(packages) and name.endswith(".py")}
    assert source - held == set()
    assert {name for name in files if name.startswith("analysis/published/")} - held == set()
