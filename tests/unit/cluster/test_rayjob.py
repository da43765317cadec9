"""The RayJob has what KubeRay's resource definition requires and nothing else, and its parts agree."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from cluster_checks import LOCK, ROOT, fits, secretless

from sweeps.engine.cli.args import read_words
from sweeps.engine.cluster.nodes import BOOTSTRAP
from sweeps.engine.cluster.resources import Request
from sweeps.engine.run.price import rate

TEXT = (ROOT / "cluster/rayjob.yaml").read_text()

# KubeRay v1.7.0, ray-operator/config/crd/bases/ray.io_rayjobs.yaml, version v1: the part that is used here. A key with
# * is required; None: whatever.
CONTAINER = {
    "name*": None,
    "image": None,
    "env": {"name*": None, "value": None},
    "resources": {"requests": None, "limits": None},
    "securityContext": {"allowPrivilegeEscalation": None, "capabilities": None},
    "volumeMounts": {"name*": None, "mountPath*": None, "subPath": None},
}
POD = {
    "spec": {
        "containers*": CONTAINER,
        "serviceAccountName": None,
        "securityContext": {
            "runAsNonRoot": None,
            "runAsUser": None,
            "fsGroup": None,
            "seccompProfile": {"type*": None},
        },
        "volumes": {
            "name*": None,
            "emptyDir": {"medium": None, "sizeLimit": None},
            "persistentVolumeClaim": {"claimName*": None},
            "configMap": {"name": None},
        },
    }
}
RAYJOB = {
    "apiVersion": None,
    "kind": None,
    "metadata": {"name": None},
    "spec": {
        "entrypoint": None,
        "shutdownAfterJobFinishes": None,
        "ttlSecondsAfterFinished": None,
        "rayClusterSpec": {
            "rayVersion": None,
            "enableInTreeAutoscaling": None,
            "autoscalerOptions": {"idleTimeoutSeconds": None, "env": {"name*": None, "value": None}},
            "authOptions": {"mode": None},
            "headGroupSpec*": {"rayStartParams": None, "template*": POD},
            "workerGroupSpecs": {
                "groupName*": None,
                "replicas": None,
                "minReplicas*": None,
                "maxReplicas*": None,
                "rayStartParams": None,
                "template*": POD,
            },
        },
    },
}


def problems(value: Any, shape: Mapping[str, Any] | None, where: str = "") -> Iterator[str]:
    """Where a value is not of the shape."""
    if shape is None:
        return
    for number, item in enumerate(value if isinstance(value, list) else []):
        yield from problems(item, shape, f"{where}[{number}]")
    if isinstance(value, list):
        return
    known = {key.rstrip("*"): inner for key, inner in shape.items()}
    yield from (f"{where}.{key} is missing" for key in known if f"{key}*" in shape and key not in value)
    for key, item in value.items():
        if key in known:
            yield from problems(item, known[key], f"{where}.{key}")
        else:
            yield f"{where}.{key} is unknown"


def parts(text: str = TEXT) -> dict[str, Any]:
    return {part["kind"]: part for part in yaml.safe_load_all(text)}


def pods(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_job_has_the_shape() -> None:
    assert list(problems(parts()["RayJob"], RAYJOB)) == []


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda job: job["spec"].pop("rayClusterSpec"), ""),  # a RayJob may also choose a cluster that is there
        (
            lambda job: job["spec"]["rayClusterSpec"].pop("headGroupSpec"),
            ".spec.rayClusterSpec.headGroupSpec is missing",
        ),
        (
            lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("groupName"),
            ".spec.rayClusterSpec.workerGroupSpecs[0].groupName is missing",
        ),
        (lambda job: job["spec"].update(entrypoin="x"), ".spec.entrypoin is unknown"),
        (
            lambda job: pods(job)[0]["containers"][0].update(resource={}),
            ".spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].resource is unknown",
        ),
    ],
)
def test_another_shape_is_found(spoil: Callable[[Any], Any], problem: str) -> None:
    job = copy.deepcopy(parts()["RayJob"])
    spoil(job)
    assert list(problems(job, RAYJOB)) == [problem][: bool(problem)]


def is_one_command(entrypoint: str) -> bool:
    """KubeRay pastes it as it is into its submitter's bash: `ray job submit --no-wait .. -- ENTRYPOINT ; fi ; ..`."""
    return not re.search(r"[&;|<>`\n]|\$\(", entrypoint)


@pytest.mark.parametrize("more", [" && ls", " ; ls", " | tee log", " < in", " > log", " $(ls)", " `ls`", " & ls"])
def test_what_the_submitter_would_run_itself_is_found(more: str) -> None:
    assert not is_one_command(f"python -m sweeps demo_lejepa{more}")


def test_the_entrypoint_is_a_sweep_with_its_scale_and_its_data() -> None:
    entrypoint = parts()["RayJob"]["spec"]["entrypoint"]
    assert is_one_command(entrypoint)
    *program, name, option, scale, data = entrypoint.split()
    assert program == ["python", "-m", "sweeps"]
    assert (ROOT / f"sweeps/{name}.py").is_file()
    words = read_words([option, scale, data])
    assert (words.scale, words.places) == (scale, (data,))
    assert data.startswith("data.path=s3://")


def test_what_the_head_is_told_is_what_the_workers_are() -> None:
    """The ConfigMap stands where the head looks for what may come, with its prices."""
    told = yaml.safe_load(parts()["ConfigMap"]["data"]["cluster.yaml"])
    cluster = parts()["RayJob"]["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    about = told["available_node_types"][group["groupName"]]
    assert {*told["available_node_types"]} == {told["head_node_type"], group["groupName"]}
    assert (about["min_workers"], about["max_workers"]) == (group["minReplicas"], group["maxReplicas"])
    assert told["max_workers"] == group["maxReplicas"]
    (worker,) = group["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    told_resources = dict(about["resources"])
    assert [told_resources.pop(name) for name in about["resources"] if name.startswith("accelerator_type:")] == [1]
    assert told_resources == {"CPU": int(limits["cpu"]), "GPU": int(limits["nvidia.com/gpu"])}
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert told["available_node_types"]["head"]["resources"] == {"CPU": 0}
    request = Request(workers=1, cpus=1, gpus=1, device="GPU")
    assert rate(told, request) == told["metadata"]["prices"][group["groupName"]]
    (head,) = pods(parts()["RayJob"])[0]["containers"]
    mounted = {mount["mountPath"]: mount.get("subPath") for mount in head["volumeMounts"]}
    assert mounted[BOOTSTRAP.replace("~", "/home/ray")] in parts()["ConfigMap"]["data"]


def test_every_sweep_finds_its_gpus() -> None:
    told = yaml.safe_load(parts()["ConfigMap"]["data"]["cluster.yaml"])
    workers = [
        {"NodeName": name, "Resources": about["resources"]}
        for name, about in told["available_node_types"].items()
        for _ in range(about.get("max_workers", 0))
    ]
    fits(workers)


def test_versions_names_and_volumes_agree() -> None:
    job = parts()["RayJob"]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == LOCK["ray"]
    containers = [container for pod in pods(job) for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    assert len({str(container["env"]) for container in containers}) == 1
    tag = containers[0]["image"].rpartition(":")[2]
    assert f'version = "{tag}"' in (ROOT / "pyproject.toml").read_text()
    assert containers[0]["image"] in (ROOT / "cluster/Dockerfile").read_text()
    for pod in pods(job):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = [mount for container in pod["containers"] for mount in container["volumeMounts"]]
        assert {mount["name"] for mount in mounts} == volumes.keys()
    volumes = {volume["name"]: volume for volume in pods(job)[0]["volumes"]}
    assert (
        volumes["results"]["persistentVolumeClaim"]["claimName"] == parts()["PersistentVolumeClaim"]["metadata"]["name"]
    )
    assert volumes["cluster"]["configMap"]["name"] == parts()["ConfigMap"]["metadata"]["name"]
    values = {item["name"]: item["value"] for item in containers[0]["env"]}
    places = {mount["name"]: mount["mountPath"] for mount in containers[0]["volumeMounts"] if "subPath" not in mount}
    assert (values["JEPA_RESULTS"], values["JEPA_CACHE"]) == (places["results"], places["cache"])
    assert all(isinstance(value, str) for value in values.values())


def test_ray_s_metrics_answer_nobody_wherever_ray_is_started() -> None:
    """On nodes of `ray up` (install.sh) and of Slurm, in pods, and in the autoscaler's container beside the head."""
    job = parts()["RayJob"]
    containers = [container for pod in pods(job) for container in pod["containers"]]
    closed = {"RAY_enable_metrics_collection": "0", "AUTOSCALER_METRIC_PORT": "-1", "DASHBOARD_METRIC_PORT": "-1"}
    for container in containers:
        values = {item["name"]: item["value"] for item in container["env"]}
        assert {name: values.get(name) for name in closed} == closed
    beside = {item["name"]: item["value"] for item in job["spec"]["rayClusterSpec"]["autoscalerOptions"]["env"]}
    assert beside.items() >= {"AUTOSCALER_METRIC_PORT": "-1", "RAY_enable_metrics_collection": "0"}.items()
    for script in ("install.sh", "slurm.sh"):
        (line,) = [line for line in (ROOT / "cluster" / script).read_text().splitlines() if "METRIC_PORT=" in line]
        assert dict(re.findall(r"(\w+)=([-\d]+)", line)) == closed


def test_a_worker_gets_all_that_it_asks_for_and_the_head_no_gpu() -> None:
    head, worker = (pod["containers"][0]["resources"] for pod in pods(parts()["RayJob"]))
    assert worker["requests"] == worker["limits"]
    assert "nvidia.com/gpu" not in head["limits"]


def test_it_is_closed() -> None:
    job = parts()["RayJob"]
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for text in (TEXT, (ROOT / "README.md").read_text()):  # before it, KubeRay knew no authOptions, and dropped them
        assert re.findall(r"KubeRay \(([\d.]+) or newer\)", text) == ["1.5.1"]
    for pod in pods(job):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    secretless(TEXT)
