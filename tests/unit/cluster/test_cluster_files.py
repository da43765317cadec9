"""The cluster files fit Ray, the sweeps, the lock and each other; each check finds a mistake.

Run: python -m pytest tests/unit/cluster/test_cluster_files.py
"""

import re
from collections.abc import Callable

import cluster_checks as checks
import pytest
from cluster_checks import CHECKS, ROOT

FILES = {name: (ROOT / name).read_text() for name in ("cluster.yaml", "cluster/gcp.yaml", "cluster/local.yaml")}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_cluster_file_passes(check: Callable[[str], None], name: str) -> None:
    check(FILES[name])


@pytest.mark.parametrize(
    ("name", "check", "right", "wrong", "message"),
    [
        ("cluster.yaml", checks.schema, "max_workers: 8\n\np", "max_worker: 8\n\np", "'max_worker' was unexpected"),
        ("cluster.yaml", checks.types, "prices: {gpu_worker", "prices: {gpu_workers", "'gpu_workers'"),
        ("cluster/gcp.yaml", checks.types, "CPU: 4, GPU: 1", "CPU: 1, GPU: 2", "assert 8 == (16 // 1)"),
        ("cluster.yaml", checks.mounts, "    ~/jepa-sweeps/.git: .git\n", "", "'.git'"),
        ("cluster.yaml", checks.scripts, "cluster/mlflow.sh", "cluster/mlflo.sh", "mlflo.sh"),
        ("cluster/gcp.yaml", checks.versions, "httplib2==0.32.1", "httplib2", "'httplib2']"),
        ("cluster.yaml", checks.closed, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled", "token on"),
        ("cluster.yaml", checks.closed, "s3://YOUR-BUCKET", "s3://key:word@YOUR-BUCKET", "AssertionError"),
    ],
)
def test_a_mistake_is_found(name: str, check: Callable[[str], None], right: str, wrong: str, message: str) -> None:
    assert right in FILES[name]
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Ray raises all kinds)
        check(FILES[name].replace(right, wrong))
    assert re.search(re.escape(message), f"{type(caught.value).__name__}: {caught.value}")
