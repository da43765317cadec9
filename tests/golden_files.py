"""Comparison with the golden files of tests/golden.

Each JSON file holds what was recorded at commit 98f937b, before the modules were moved ("recorded"), and what has come
since ("added"); later code must give the two together. Renew the files in a commit whose message lists the differences:

    JEPA_GOLDEN=renew python -m pytest tests/unit/test_golden.py tests/integration/test_golden_sweep.py

Entries of "recorded" that are gone or different are removed; new ones enter "added". store_98f937b.db.gz is never
renewed: `make demo` wrote it at that commit. Artifacts and the machine's metrics are left out, most curves are cut to
their last epoch, and paths and names of user and machine are replaced.
"""

import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
DEMO = {"demo_lejepa": 9, "demo_rectified_lpjepa": 9, "demo_two_workers": 1}  # cells of the old store


def write_old_store(results: Path) -> str:
    """Copy the old store into a results folder. Returns its URI."""
    (results / "mlflow.db").write_bytes(gzip.decompress((GOLDEN / "store_98f937b.db.gz").read_bytes()))
    return f"sqlite:///{results / 'mlflow.db'}"


def known(file: str) -> dict[str, str]:
    """The entries of a golden file."""
    golden = json.loads((GOLDEN / file).read_text())
    return golden["recorded"] | golden["added"]


def hold(file: str, now: Mapping[str, str]) -> None:
    """Compare with a golden file, or renew it."""
    if os.environ.get("JEPA_GOLDEN") == "renew":
        golden = json.loads((GOLDEN / file).read_text())
        recorded = {name: text for name, text in golden["recorded"].items() if now.get(name) == text}
        golden = {"recorded": recorded, "added": {name: now[name] for name in now if name not in recorded}}
        (GOLDEN / file).write_text(json.dumps(golden, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    wanted = known(file)
    differ = sorted(name for name in wanted.keys() | now.keys() if wanted.get(name) != now.get(name))
    assert {name: f"golden {wanted.get(name)}, now {now.get(name)}" for name in differ} == {}
