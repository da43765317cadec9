"""Contents of a built wheel.

Run: python -m pytest tests/slow/test_wheel.py
"""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("jepa_train", "search_spaces", "sweeps", "analysis", "benchmarks")


def test_a_wheel_holds_every_module_type_marker_and_published_number(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        if (ROOT / name).is_file() and not name.startswith(("docs/results/", "tests/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(copy)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    wanted = {name for name in files if name.startswith(PACKAGES) and name.endswith((".py", "py.typed", ".txt"))}
    wanted |= {name for name in files if name.startswith("analysis/published/")}
    assert wanted - set(zipfile.ZipFile(wheel).namelist()) == set()
    assert {f"{package}/py.typed" for package in PACKAGES} <= wanted
