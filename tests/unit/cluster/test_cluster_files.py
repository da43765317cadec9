"""The cluster files fit Ray, the sweeps, the lock and each other; each check finds the mistake that it is there for."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import cluster_checks as checks
import pytest
from cluster_checks import CHECKS, ROOT

FILES = {name: ROOT / name for name in ("cluster.yaml", "cluster/gcp.yaml", "cluster/local.yaml")}
MISTAKES: list[tuple[str, Callable[[str], None], str, str, str]] = [
    (
        "cluster.yaml",
        checks.schema,
        "max_workers: 8\n\nprovider",
        "max_worker: 8\n\nprovider",
        "'max_worker' was unexpected",
    ),
    ("cluster.yaml", checks.schema, "head_node_type: head", "head_node_type: boss", "`head_node_type` must be one of"),
    ("cluster/local.yaml", checks.schema, "head_ip", "head_host", "supply a `head_ip`"),
    ("cluster.yaml", checks.types, "prices: {gpu_worker", "prices: {gpu_workers", "'gpu_workers'"),
    ("cluster.yaml", checks.types, "resources: {CPU: 0}", "resources: {CPU: 8}", "{'CPU': 8} == {'CPU': 0}"),
    ("cluster.yaml", checks.types, "--num-cpus=0 ", "", "no CPU of the head"),
    ("cluster/gcp.yaml", checks.types, "min_workers: 0", "min_workers: 1", "from zero"),
    ("cluster/gcp.yaml", checks.types, "        max_workers: 8", "        max_workers: 4", "assert 4 == 8"),
    ("cluster/gcp.yaml", checks.types, "GPU: 1", "GPU: 0", "assert 0 >= 1"),
    (
        "cluster.yaml",
        checks.spot,
        "            InstanceMarketOptions: {MarketType: spot}\n",
        "",
        "set() == {'gpu_worker'}",
    ),
    (
        "cluster/gcp.yaml",
        checks.spot,
        "provisioningModel: SPOT",
        "provisioningModel: STANDARD",
        "set() == {'gpu_worker'}",
    ),
    ("cluster/gcp.yaml", checks.spot, "notice.sh gcp", "notice.sh aws", "notice.sh aws"),
    ("cluster.yaml", checks.spot, "idle_timeout_minutes: 15", "idle_timeout_minutes: 5", "assert 5 >= 12"),
    ("cluster.yaml", checks.placement, "CPU: 4, GPU: 1", "CPU: 4", "assert 0.0 == 1"),
    ("cluster/gcp.yaml", checks.placement, "CPU: 4, GPU: 1", "CPU: 1, GPU: 2", "assert 8 == (16 // 1)"),
    ("cluster.yaml", checks.placement, "max_workers: 8", "max_workers: 0", "assert 0.0 == 1"),
    ("cluster.yaml", checks.mounts, "    ~/jepa-sweeps/search_spaces: search_spaces\n", "", "'search_spaces'"),
    ("cluster.yaml", checks.mounts, "    ~/jepa-sweeps/.git: .git\n", "", "'.git'"),
    (
        "cluster.yaml",
        checks.mounts,
        "    ~/jepa-sweeps/tests: tests\n",
        "    ~/jepa-sweeps/tests: tests\n    ~/x: .ci\n",
        "'~/x'",
    ),
    ("cluster/local.yaml", checks.mounts, "    ~/.ray/auth_token: ~/.ray/auth_token\n", "", "'~/.ray/auth_token'"),
    ("cluster/local.yaml", checks.mounts, '".venv", ', "", "'.venv'"),
    ("cluster.yaml", checks.mounts, '".venv", ', '".venv", "results", ', "('results', 'results')"),
    ("cluster.yaml", checks.scripts, "|| (sudo", "|| ((sudo", "'bash', '-n'"),
    ("cluster.yaml", checks.scripts, "cluster/mlflow.sh", "cluster/mlflo.sh", "mlflo.sh"),
    ("cluster/local.yaml", checks.scripts, "ulimit -n 65536; for", "cd $HOME/ray; for", "SC2164"),
    ("cluster.yaml", checks.quoting, '"ray stop"', "ray stop", "['ray stop'] == []"),
    ("cluster/gcp.yaml", checks.versions, "httplib2==0.32.1", "httplib2", "'httplib2']"),
    ("cluster/gcp.yaml", checks.versions, "httplib2==0.32.1", "boto3==1.44.8", "'boto3'"),
    ("cluster.yaml", checks.versions, "JEPA_PYTHON=python3.12", "JEPA_PYTHON=python3.13", "'3.13.1' in"),
    (
        "cluster.yaml",
        checks.versions,
        "JEPA_PYTHON=python3.12",
        "JEPA_PYTHON=python3.11",
        "{'3.11', '3.12'} == {'3.11'}",
    ),
    (
        "cluster.yaml",
        checks.closed,
        "--dashboard-host=127.0.0.1",
        "--dashboard-host=0.0.0.0",
        "'--dashboard-host=127.0.0.1'",
    ),
    ("cluster.yaml", checks.closed, " --disable-usage-stats", "", "'--disable-usage-stats'"),
    ("cluster.yaml", checks.closed, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled", "token on"),
    ("cluster.yaml", checks.closed, "HttpTokens: required", "HttpTokens: optional", "'optional' == 'required'"),
    ("cluster.yaml", checks.closed, "GroupName: jepa", "IpPermissions: []\n        GroupName: jepa", "'IpPermissions'"),
    ("cluster/local.yaml", checks.closed, "RAY_enable_autoscaler_v2=0 ", "", "RAY_enable_autoscaler_v2=0"),
    ("cluster.yaml", checks.secretless, "s3://YOUR-BUCKET", "s3://key:word@YOUR-BUCKET", "match='//key:word@'"),
    (
        "cluster.yaml",
        checks.secretless,
        "RAY_AUTH_MODE=token'",
        "RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef'",
        "match='_TOKEN=0123456789",
    ),
    (
        "cluster.yaml",
        checks.secretless,
        "JEPA_PYTHON=python3.12",
        "AWS_SECRET_ACCESS_KEY=abcdefgh",
        "match='SECRET_ACCESS_KEY=",
    ),
    (
        "cluster.yaml",
        checks.filled_in_first,
        "    # On the head's own disk: the MLflow store, locks and reports.\n",
        "",
        "JEPA_RESULTS",
    ),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_cluster_file_holds(check: Callable[[str], None], name: str) -> None:
    check(FILES[name].read_text())


@pytest.mark.parametrize(("name", "check", "right", "wrong", "told"), MISTAKES)
def test_a_mistake_is_found(name: str, check: Callable[[str], None], right: str, wrong: str, told: str) -> None:
    text = FILES[name].read_text()
    assert right in text
    with pytest.raises(Exception, match=re.escape(told)):  # Ray raises all kinds
        check(text.replace(right, wrong))


def test_every_check_has_its_mistake() -> None:
    assert {check for _, check, *_ in MISTAKES} == {*CHECKS}


@pytest.mark.parametrize("name", FILES)
def test_the_settings_are_those_of_the_code_and_a_second_ray_up_changes_nothing(name: str, tmp_path: Path) -> None:
    """The commands that write them, run twice as Ray runs them: in order, each in a shell of its own."""
    cluster = checks.read(FILES[name].read_text())
    writes = [word for word in checks.commands(FILES[name].read_text()) if word.startswith("echo ")]
    assert [*writes] == [
        word for word in checks.commands(FILES[name].read_text()) if re.search(r"> ~/\.jepa-\w+\.sh", word)
    ]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    seen = []
    for commands in (writes, writes, cluster["initialization_commands"]):  # the last is --restart-only after an edit
        for command in commands:
            subprocess.run(["bash", "-c", command], env=environment, check=True)
        seen.append([(tmp_path / file).read_text() for file in (".jepa-sweeps.sh", ".jepa-node.sh")])
    assert seen[0] == seen[1] == seen[2]
    shown = subprocess.run(
        ["bash", "-c", ". ~/.jepa-sweeps.sh; . ~/.jepa-node.sh; env"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = dict(line.split("=", 1) for line in shown.splitlines())
    assert values["JEPA_RESULTS"] == f"{tmp_path}/jepa-results"
    assert values["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert values["RAY_AUTH_MODE"] == "token"
    code = "".join(file.read_text() for file in (ROOT / "jepa_train").rglob("*.py"))
    named = {word for word in values if word.startswith("JEPA_")} - {"JEPA_PYTHON"}  # install.sh's
    assert named == {word for word in ("JEPA_RESULTS", "JEPA_STORAGE", "JEPA_CACHE") if f'"{word}"' in code}
    assert cluster["initialization_commands"][0].count(">>") == 0
