"""cluster.yaml on AWS: the machines that Ray makes of it in moto's stand-in for EC2 and IAM.

Run: python -m pytest tests/slow/test_aws.py
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from cluster_checks import ROOT
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config

FILE = yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty account; a home for the key pair that Ray makes. Nothing leaves this machine."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("HOME", str(home))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "nobody")
        patch.setenv("AWS_DEFAULT_REGION", FILE["provider"]["region"])
        yield home


@pytest.fixture(scope="module")
def cluster(account: Path) -> dict[str, Any]:
    """The file as `ray up` completes it."""
    (account / ".ssh").mkdir()
    return bootstrap_aws(prepare_config(copy.deepcopy(FILE)))


@pytest.fixture(scope="module")
def started(cluster: dict[str, Any]) -> dict[str, Any]:
    """The head and one worker in EC2; the user has made the two roles."""
    iam, ec2 = boto3.client("iam"), boto3.client("ec2")
    for about in FILE["available_node_types"].values():
        iam.create_instance_profile(InstanceProfileName=about["node_config"]["IamInstanceProfile"]["Name"])
    provider = AWSNodeProvider(cluster["provider"], cluster["cluster_name"])
    for name, about in cluster["available_node_types"].items():
        tags = {"ray-node-type": name, "ray-node-name": name, "ray-launch-config": "x"}
        provider.create_node(about["node_config"], tags, 1)
    instances = [item for group in ec2.describe_instances()["Reservations"] for item in group["Instances"]]
    return {tag["Value"]: item for item in instances for tag in item["Tags"] if tag["Key"] == "ray-node-type"}


def test_ssh_alone_comes_in_from_outside(started: dict[str, Any]) -> None:
    ec2 = boto3.client("ec2")
    groups = {group["GroupId"] for item in started.values() for group in item["SecurityGroups"]}
    (group,) = ec2.describe_security_groups(GroupIds=[*groups])["SecurityGroups"]
    assert group["GroupName"] == FILE["provider"]["security_group"]["GroupName"]
    outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in outside] == [("tcp", 22, 22)]
    inside = [pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]]
    assert inside == [group["GroupId"]]


def test_workers_are_spot_and_machines_have_roles_and_encrypted_disks(started: dict[str, Any]) -> None:
    ec2 = boto3.client("ec2")
    assert {name: item.get("InstanceLifecycle") for name, item in started.items()} == {
        "head": None,
        "gpu_worker": "spot",
    }
    for name, item in started.items():
        role = FILE["available_node_types"][name]["node_config"]["IamInstanceProfile"]["Name"]
        assert item["IamInstanceProfile"]["Arn"].endswith(f"/{role}")
        assert item["MetadataOptions"]["HttpTokens"] == "required"
        disks = [disk["Ebs"]["VolumeId"] for disk in item["BlockDeviceMappings"]]
        volumes = ec2.describe_volumes(VolumeIds=disks)["Volumes"]
        assert [(volume["Size"], volume["Encrypted"]) for volume in volumes] == [(200, True)]


def test_the_resources_written_are_those_of_the_instance_type(cluster: dict[str, Any]) -> None:
    """Prices and room are computed from them before any machine is up."""
    bare = copy.deepcopy(cluster)
    for about in bare["available_node_types"].values():
        about["resources"] = {}
    known = AWSNodeProvider.fillout_available_node_types_resources(bare)["available_node_types"]["gpu_worker"][
        "resources"
    ]
    assert {name: known[name] for name in ("CPU", "GPU")} == FILE["available_node_types"]["gpu_worker"]["resources"]
    assert "accelerator_type:L4" in known
