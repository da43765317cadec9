"""The cluster files fit Ray, the sweeps and each other.

Run: python -m pytest tests/unit/cluster/test_cluster_files.py
"""

from collections.abc import Callable

import pytest
from cluster_checks import CHECKS, ROOT

FILES = {name: (ROOT / name).read_text() for name in ("cluster.yaml", "cluster/gcp.yaml", "cluster/local.yaml")}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_cluster_file_passes(check: Callable[[str], None], name: str) -> None:
    check(FILES[name])
