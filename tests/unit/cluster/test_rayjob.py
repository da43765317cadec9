"""The RayJob of cluster/rayjob.yaml agrees with itself, the lock, the image and the sweeps.

Run: python -m pytest tests/unit/cluster/test_rayjob.py
"""

import re
from typing import Any

import yaml
from cluster_checks import LOCK, ROOT, fits, secretless

from sweeps.engine.cli.args import read_words
from sweeps.engine.cluster.nodes import BOOTSTRAP

TEXT = (ROOT / "cluster/rayjob.yaml").read_text()
PARTS: dict[str, Any] = {part["kind"]: part for part in yaml.safe_load_all(TEXT)}
JOB = PARTS["RayJob"]["spec"]
CLUSTER = JOB["rayClusterSpec"]
(GROUP,) = CLUSTER["workerGroupSpecs"]
PODS = [group["template"]["spec"] for group in (CLUSTER["headGroupSpec"], GROUP)]
HEAD, WORKER = (pod["containers"][0] for pod in PODS)
SETTINGS = yaml.safe_load(PARTS["ConfigMap"]["data"]["cluster.yaml"])


def test_the_entrypoint_is_one_command_with_a_sweep_its_scale_and_its_data() -> None:
    """KubeRay pastes it into a line of shell."""
    assert not re.search(r"[&;|<>`\n]|\$\(", JOB["entrypoint"])
    *program, name, option, scale, data = JOB["entrypoint"].split()
    assert program == ["python", "-m", "sweeps"]
    assert (ROOT / f"sweeps/{name}.py").is_file()
    words = read_words([option, scale, data])
    assert (words.scale, words.overrides) == (scale, (data,))
    assert data.startswith("data.path=s3://")


def test_the_settings_that_the_head_reads_are_those_of_the_worker_group() -> None:
    settings = SETTINGS["available_node_types"][GROUP["groupName"]]
    assert SETTINGS["available_node_types"].keys() == {SETTINGS["head_node_type"], GROUP["groupName"]}
    assert (settings["min_workers"], settings["max_workers"]) == (GROUP["minReplicas"], GROUP["maxReplicas"])
    assert SETTINGS["max_workers"] == GROUP["maxReplicas"]
    limits = WORKER["resources"]["limits"]
    assert limits == WORKER["resources"]["requests"]
    resources = {name: amount for name, amount in settings["resources"].items() if "accelerator_type" not in name}
    assert resources == {"CPU": int(limits["cpu"]), "GPU": int(limits["nvidia.com/gpu"])}
    assert CLUSTER["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert SETTINGS["metadata"]["prices"].keys() == {GROUP["groupName"]}
    mounted = {mount["mountPath"]: mount.get("subPath") for mount in HEAD["volumeMounts"]}
    assert mounted[BOOTSTRAP.replace("~", "/home/ray")] in PARTS["ConfigMap"]["data"]
    fits([{"NodeName": "gpu", "Resources": settings["resources"]}] * settings["max_workers"])


def test_versions_and_images_agree() -> None:
    assert CLUSTER["rayVersion"] == LOCK["ray"]
    assert HEAD["image"] == WORKER["image"]
    assert HEAD["env"] == WORKER["env"]
    assert HEAD["image"] in (ROOT / "cluster/Dockerfile").read_text()


def test_it_is_closed() -> None:
    """Token, no root, no secret; Ray's metrics answer nobody, in pods and on the nodes of the other scripts."""
    assert CLUSTER["authOptions"] == {"mode": "token"}
    closed = {"RAY_enable_metrics_collection": "0", "AUTOSCALER_METRIC_PORT": "-1", "DASHBOARD_METRIC_PORT": "-1"}
    assert {item["name"]: item["value"] for item in HEAD["env"]}.items() >= closed.items()
    for pod in PODS:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    for script in ("install.sh", "slurm.sh"):
        (line,) = [line for line in (ROOT / "cluster" / script).read_text().splitlines() if "METRIC_PORT=" in line]
        assert dict(re.findall(r"(\w+)=([-\d]+)", line)) == closed
    secretless(TEXT)
