"""Public import paths, from a folder outside the checkout.

Run: python -m pytest tests/integration/test_public_imports.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

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
from sweeps.engine import Asha, BestOf, Domain, LabelFree, Sweep, Table, main
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
