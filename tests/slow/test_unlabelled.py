"""docs/unlabelled.md: its commands, on made-up TIFF files of 16 bits, with fewer epochs and a small encoder.

Run: python -m pytest tests/slow/test_unlabelled.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/unlabelled.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, flags=re.MULTILINE)
SMALL = " model.encoder=test_resnet model.projector_hidden=64 method.num_slices=64 optim.warmup_epochs=1"


def write_stack(path: Path, spots: int, seed: int) -> None:
    """Two pages of 16 bits, of which the first has this number of spots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :48]
    pages = []
    for count in (spots, 5):
        centers = zip(draws.uniform(4, 36, count), draws.uniform(4, 44, count), strict=True)
        light = sum(np.exp(-((y - row) ** 2 + (x - column) ** 2) / 12) for row, column in centers)
        pages.append(Image.fromarray((300 + 3000 * light + draws.normal(0, 50, y.shape)).astype(np.uint16)))
    pages[0].save(path, save_all=True, append_images=pages[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page names; commands run in it."""
    root = tmp_path_factory.mktemp("page")
    for number in range(300):
        write_stack(root / "cells" / f"plate_{number % 3}" / f"{number:03}.tif", 1 + number % 9, number)
    for number in range(60):
        label = ("few", "many")[number % 2]
        write_stack(
            root / "sorted_cells" / ("train", "test")[number // 40] / label / f"{number}.tif",
            9 if number % 2 else 1,
            1000 + number,
        )
    safetensors.torch.save_file(timm.create_model("test_resnet").state_dict(), root / "pretrained.safetensors")
    (text,) = re.findall(r"^`cells_search.py`\n\n```python\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL)
    (root / "cells_search.py").write_text(text.replace("trials=8", "trials=2").replace("epochs=20", "epochs=2"))
    return root


def run(command: str, folder: Path) -> str:
    """Output of a command of the page, with this Python."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JEPA_RESULTS": str(folder / "results")}
    trains = "jepa_train" in command or "cells_search.py" in command
    line = command.replace(".venv/bin/python", sys.executable) + SMALL * trains
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_the_commands_of_the_page_pretrain_search_and_probe(folder: Path) -> None:
    single, preview, search, table, evaluated, probed, started, best = (run(command, folder) for command in COMMANDS)
    assert re.search(r"^data cells: .*$", PAGE, re.MULTILINE)[0] in single
    assert not any("top-1" in text or "top1" in text for text in (single, preview, search, table))
    assert "2 finished of 2 cells" in search
    assert "train loss / λ^0.4" in search
    assert re.search(r"^\| 1 .*\d\.\d", table, re.MULTILINE)
    assert "2/2" in evaluated
    accuracies = [float(value) for value in re.findall(r"^\| \d .* ([\d.]+) \|$", probed, re.MULTILINE)]
    assert len(accuracies) == 2
    assert max(accuracies) > 60
    assert "2 finished of 2 cells" in started
    assert "best of 2 settings by train/loss / method.lamb^0.4" in best
    (lines,) = re.findall(r"```python\n(.*?)```", (folder / "exports/cells/README.md").read_text(), re.DOTALL)
    assert "local-dir:" in lines
    names = {"images": torch.zeros(3, 2, 32, 32)}
    exec(lines, names)
    assert names["features"].shape == (3, 96)
