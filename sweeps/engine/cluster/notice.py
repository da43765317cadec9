"""notice: on a spot machine, wait for the cloud's word that it will be taken away, and drain its Ray node at once.

The cluster files start `python -m sweeps notice aws|gcp` on each spot worker. A drained node gets no new work, and Ray
Train tells the workers on it, which save a checkpoint. This process trains nothing, so it imports no torch.
"""

import argparse
import http.client
import json
import logging
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ray.exceptions import RpcError

from sweeps.engine.cluster.ray_private import drain_this_machine
from sweeps.engine.parser import LineParser

logger = logging.getLogger(__name__)

_TIMEOUT_S = 2.0  # of one question; the answer comes from the same machine
_RETRY_S = 1.0  # between tries to drain


@dataclass(frozen=True)
class Notice:
    """The machine goes at `deadline`, in seconds since the epoch."""

    text: str
    deadline: float


@dataclass(frozen=True)
class Cloud:
    """Where a cloud's metadata service is, how often to ask it, and how."""

    url: str
    every_s: float
    ask: Callable[[str], Notice | None]


def watch(words: Sequence[str]) -> int:
    """Wait for the notice, then drain this machine's nodes.

    Returns:
        0 once they are drained, 1 when that did not succeed in the time that the notice left.

    Raises:
        ConfigError: an unknown cloud or option.
    """
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s")
    options = _options(words)
    cloud = CLOUDS[options.cloud]
    notice = _waited(cloud, options.metadata or cloud.url)
    logger.info("notice of %s: %s; %.0f s left", options.cloud, notice.text, notice.deadline - time.time())
    while True:
        try:
            if nodes := drain_this_machine(notice.text, notice.deadline, timeout_s=_TIMEOUT_S):
                logger.info("drained: %s", ", ".join(nodes))
                return 0
            problem = "no Ray node runs on this machine"
        except (RuntimeError, OSError, RpcError) as error:  # the head is away, or Ray is just starting
            problem = str(error)
        if time.time() + _RETRY_S > notice.deadline:
            logger.error("not drained: %s", problem)
            return 1
        time.sleep(_RETRY_S)


def aws(url: str) -> Notice | None:
    """Of EC2: spot/instance-action, which is there from two minutes before the end on.

    A rebalance recommendation is none: it says that the risk has grown, and most machines stay for hours after it.
    """
    asked = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _answer(f"{url}/latest/api/token", asked, method="PUT")
    text = _answer(f"{url}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token or ""})
    if text is None:
        return None
    action = json.loads(text)
    deadline = datetime.fromisoformat(action["time"])
    return Notice(f"{action['action']} at {action['time']}", deadline.timestamp())


def gcp(url: str) -> Notice | None:
    """Of Compute Engine: instance/preempted, which turns TRUE half a minute before the end."""
    text = _answer(f"{url}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return Notice("preempted", time.time() + 30) if text == "TRUE" else None


CLOUDS: Mapping[str, Cloud] = {
    "aws": Cloud("http://169.254.169.254", 5.0, aws),  # as often as AWS advises
    "gcp": Cloud("http://metadata.google.internal", 1.0, gcp),  # of its 30 s none is to be lost
}


def _waited(cloud: Cloud, url: str) -> Notice:
    """The notice, when it comes. A service that is away, or answers nonsense, is asked again."""
    away = ""
    while True:
        try:
            notice, problem = cloud.ask(url), ""
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            notice, problem = None, f"{type(error).__name__}: {error}"
        if notice is not None:
            return notice
        if problem != away:
            logger.info("the metadata service at %s %s", url, f"is away ({problem})" if problem else "answers")
            away = problem
        time.sleep(cloud.every_s)


def _answer(url: str, headers: Mapping[str, str], *, method: str = "GET") -> str | None:
    """None where there is nothing at the address. No proxy: the service answers this machine alone."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            urllib.request.Request(url, headers=dict(headers), method=method), timeout=_TIMEOUT_S
        ) as reply:
            return reply.read().decode().strip()
    except urllib.error.HTTPError as error:
        if error.code == http.client.NOT_FOUND:
            return None
        raise


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = LineParser(
        prog="python -m sweeps notice", description="Drain this spot machine's node when its notice comes."
    )
    parser.command, parser.remedy = "notice: ", "write python -m sweeps notice aws|gcp"
    parser.add_argument("cloud", choices=[*CLOUDS])
    parser.add_argument("--metadata", metavar="URL", default="", help="where the metadata service answers")
    return parser.parse_args(list(words))
