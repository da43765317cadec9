"""notice: drain the Ray node of a spot machine as soon as its cloud announces that the machine will be taken away.

The cluster files start `python -m sweeps notice aws|gcp` on each spot worker. A drained node gets no new work, and Ray
Train tells the workers on it, which save a checkpoint. Imports no torch.
"""

import http.client
import json
import logging
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from datetime import datetime

from jepa_train.base.errors import ConfigError

logger = logging.getLogger(__name__)

AWS = "http://169.254.169.254/latest"
GCP = "http://metadata.google.internal/computeMetadata/v1"
TIMEOUT_S = 2.0  # of a request to the metadata service, which runs on the same machine
RETRY_S = 1.0  # between attempts to drain


def watch(words: Sequence[str]) -> int:
    """Wait for the notice, then drain this machine's worker nodes.

    Returns:
        0 once they are drained, 1 when that did not succeed in the time that the notice left.

    Raises:
        ConfigError: an unknown cloud.
    """
    if len(words) != 1 or words[0] not in CLOUDS:
        raise ConfigError(f"notice: got {' '.join(words)!r}; write python -m sweeps notice aws|gcp")
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ["no_proxy"] = "*"  # the service answers this machine alone
    ask, every_s = CLOUDS[words[0]]
    deadline, before = None, ""
    while deadline is None:
        try:
            deadline, state = ask(), "no notice yet"
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:  # it is away, or answers nonsense
            state = f"no notice yet ({error})"
        if state != before:
            logger.info(before := state)
        time.sleep(0 if deadline else every_s)
    while (left := deadline - time.time()) > 0:
        logger.info("notice of %s: %.0f s left", words[0], left)
        try:
            logger.info("drained: %s", ", ".join(drain(int(left))))
            return 0
        except Exception as error:  # noqa: BLE001 (of many kinds where the head is away, or Ray is starting)
            logger.info("not drained: %s", error)
        time.sleep(RETRY_S)
    return 1


def aws() -> float | None:
    """Deadline by EC2's spot/instance-action, which appears two minutes ahead. HTTPError (404) without a notice.

    A rebalance recommendation is not a notice: most machines stay for hours after it.
    """
    token = _request(f"{AWS}/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    action = _request(f"{AWS}/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    return datetime.fromisoformat(json.loads(action)["time"]).timestamp()


def gcp() -> float | None:
    """Deadline by Compute Engine's instance/preempted, which turns TRUE half a minute ahead; None without a notice."""
    return time.time() + 30 if _request(f"{GCP}/instance/preempted", {"Metadata-Flavor": "Google"}) == "TRUE" else None


CLOUDS = {"aws": (aws, 5.0), "gcp": (gcp, 1.0)}  # seconds between requests: AWS advises 5; Google leaves 30 s in all


def drain(left_s: int) -> list[str]:
    """Drain the Ray nodes of this machine, except the head, which all others need. Returns their ids.

    Raises:
        Exception, of Ray, the system or the command: the cluster cannot be asked, it refuses, or no worker runs here.
    """
    import ray  # two seconds to import

    with ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False):
        here = [node for node in ray.nodes() if node["NodeManagerAddress"] == ray.util.get_node_ip_address()]
    found = [node["NodeID"] for node in here if node["Alive"] and "node:__internal_head__" not in node["Resources"]]
    if not found:
        raise RuntimeError("no worker node of Ray runs on this machine")
    options = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot notice"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *options]
    for node in found:
        subprocess.run(
            [*command, f"--node-id={node}", f"--deadline-remaining-seconds={left_s}"], check=True, timeout=60
        )
    return found


def _request(url: str, headers: dict[str, str], *, method: str = "GET") -> str:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers, method=method), timeout=TIMEOUT_S
    ) as reply:
        return reply.read().decode().strip()
