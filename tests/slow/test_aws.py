"""cluster.yaml on AWS: the machines that Ray makes of it in moto's stand-in for EC2 and IAM.

Run: python -m pytest tests/slow/test_aws.py
"""

import copy
from collections.abc import Iterator
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
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The file as `ray up` completes it in an empty account. Nothing leaves this machine."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()  # of the key pair that Ray makes
    settings = {"HOME": str(home), "AWS_DEFAULT_REGION": FILE["provider"]["region"]}
    settings |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "nobody")
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, text in settings.items():
            patch.setenv(name, text)
        yield bootstrap_aws(prepare_config(copy.deepcopy(FILE)))


def test_machines_have_roles_and_encrypted_disks_workers_are_spot_and_ssh_alone_comes_in(cluster: dict) -> None:
    """The head and one worker; the user has made the two roles."""
    iam, ec2 = boto3.client("iam"), boto3.client("ec2")
    provider = AWSNodeProvider(cluster["provider"], cluster["cluster_name"])
    for name, about in cluster["available_node_types"].items():
        role = FILE["available_node_types"][name]["node_config"]["IamInstanceProfile"]["Name"]
        iam.create_instance_profile(InstanceProfileName=role)
        tags = {"ray-node-type": name, "ray-node-name": name, "ray-launch-config": "x"}
        provider.create_node(about["node_config"], tags, 1)
        (machine,) = provider.non_terminated_nodes({"ray-node-type": name})
        (item,) = ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"]
        assert item.get("InstanceLifecycle") == (None if name == "head" else "spot")
        assert item["IamInstanceProfile"]["Arn"].endswith(f"/{role}")
        assert item["MetadataOptions"]["HttpTokens"] == "required"
        disks = [disk["Ebs"]["VolumeId"] for disk in item["BlockDeviceMappings"]]
        volumes = ec2.describe_volumes(VolumeIds=disks)["Volumes"]
        assert [(volume["Size"], volume["Encrypted"]) for volume in volumes] == [(200, True)]
        (about_group,) = item["SecurityGroups"]
        (group,) = ec2.describe_security_groups(GroupIds=[about_group["GroupId"]])["SecurityGroups"]
        outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
        assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in outside] == [("tcp", 22, 22)]
        inside = [pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]]
        assert inside == [group["GroupId"]]


def test_the_resources_written_are_those_of_the_instance_type(cluster: dict[str, Any]) -> None:
    """Prices and room are computed from them before any machine is up."""
    bare = copy.deepcopy(cluster)
    bare["available_node_types"]["gpu_worker"]["resources"] = {}
    found = AWSNodeProvider.fillout_available_node_types_resources(bare)["available_node_types"]["gpu_worker"]
    written = FILE["available_node_types"]["gpu_worker"]["resources"]
    assert found["resources"].items() >= {**written, "accelerator_type:L4": 1}.items()
