"""notice: the cloud's word that a spot machine goes drains its node, whatever the metadata service does before."""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps.__main__ import main
from sweeps.engine.cluster import notice
from sweeps.engine.cluster.notice import Cloud, Notice, aws, gcp

ACTION = "/latest/meta-data/spot/instance-action"
PREEMPTED = "/computeMetadata/v1/instance/preempted"


class Service:
    """A metadata service as the clouds document theirs: AWS (IMDSv2) knows nobody without a token, Google nobody
    without its header. `answers` by path; what is not there is answered with 404."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._reply(200 if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else 400, "the token")

            def do_GET(self) -> None:
                service.asked.append(self.path)
                google = self.path.startswith("/computeMetadata/")
                name, value = ("Metadata-Flavor", "Google") if google else ("X-aws-ec2-metadata-token", "the token")
                if self.headers[name] != value:
                    self._reply(403 if google else 401, "")
                elif self.path in service.answers:
                    self._reply(200, service.answers[self.path])
                else:
                    self._reply(404, "")

            def _reply(self, code: int, text: str) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(notice, "_TIMEOUT_S", 60.0)  # the machine may be busy
    service = Service()
    yield service
    service.close()


def test_aws_tells_when_the_machine_goes(service: Service) -> None:
    assert aws(service.url) is None
    service.answers[ACTION] = '{"action": "terminate", "time": "2017-09-18T08:22:00Z"}'
    assert aws(service.url) == Notice("terminate at 2017-09-18T08:22:00Z", 1505722920.0)  # date -d ... +%s


def test_a_rebalance_recommendation_is_no_notice(service: Service) -> None:
    service.answers["/latest/meta-data/events/recommendations/rebalance"] = '{"noticeTime": "2017-09-18T08:22:00Z"}'
    assert aws(service.url) is None


def test_google_gives_half_a_minute(service: Service) -> None:
    service.answers[PREEMPTED] = "FALSE"
    assert gcp(service.url) is None
    service.answers[PREEMPTED] = "TRUE"
    before = time.time()
    found = gcp(service.url)
    assert found is not None
    assert before + 30 <= found.deadline <= time.time() + 30


def test_a_proxy_is_not_asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    service.answers[PREEMPTED] = "FALSE"
    assert gcp(service.url) is None


def test_a_service_that_is_away_or_talks_nonsense_is_asked_again(service: Service) -> None:
    """Nothing listens; an answer that is no JSON; an answer without a time; the notice."""
    urls = ["http://127.0.0.1:9", *[service.url] * 3]
    answers = iter(["", "<html>", '{"action": "stop"}', '{"action": "stop", "time": "2017-09-18T08:22:00Z"}'])

    def ask(_: str) -> Notice | None:
        service.answers[ACTION] = next(answers)
        return aws(urls.pop(0))

    assert notice._waited(Cloud("", 0.01, ask), "").text == "stop at 2017-09-18T08:22:00Z"
    assert urls == []


def test_no_ray_on_the_machine_is_told_in_the_time_that_is_left(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    end = datetime.now(UTC) + timedelta(seconds=30)
    now, tries = [end.timestamp() - 30], []
    clock = SimpleNamespace(time=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr(notice, "time", clock)
    monkeypatch.setattr(notice, "drain_this_machine", lambda *_, **__: tries.append(now[0]) or [])
    service.answers[ACTION] = json.dumps({"action": "terminate", "time": end.isoformat()})
    with caplog.at_level("INFO"):
        assert main(["notice", "aws", "--metadata", service.url]) == 1
    assert "not drained: no Ray node runs on this machine" in caplog.text
    assert len(tries) in (30, 31)  # one a second
    assert max(tries) <= end.timestamp()


@pytest.mark.parametrize("words", [[], ["azure"], ["aws", "--metadat", "x", "y"]])
def test_what_is_misspelt_is_answered_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notice", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: notice: ")
    assert told.endswith("; write python -m sweeps notice aws|gcp\n")
    assert told.count("\n") == 1


# In a process of its own: a cluster of nodes is of the whole process. The node is busy: an idle one ends once drained.
CLUSTER = """
import json, sys, time
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
worker = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
busy = ray.remote(num_cpus=1)(lambda: time.sleep(300)).remote()
while ray.available_resources().get("CPU"):
    time.sleep(0.1)
print(json.dumps({"address": cluster.address, "worker": worker.node_id}), flush=True)
draining, end = {}, time.time() + 240
while not draining and time.time() < end:
    time.sleep(0.5)
    draining = ray._private.state.state.get_draining_nodes()
print(json.dumps(draining), flush=True)
sys.stdin.read()
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of this test's own for Ray: it notes there which cluster is to be joined. A short name, for sockets."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with tempfile.TemporaryDirectory(prefix="jepa-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


@pytest.mark.usefixtures("ray_folder")
def test_the_machine_s_node_is_drained_with_the_deadline_and_the_head_is_not(service: Service) -> None:
    """A real cluster, head and worker on this machine; the service has no notice at first, and then one."""
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    watch = None
    hung = threading.Timer(300, cluster.kill)  # then its lines below are empty
    hung.start()
    try:
        made = json.loads(cluster.stdout.readline())
        watch = subprocess.Popen(
            [sys.executable, "-m", "sweeps", "notice", "aws", "--metadata", service.url],
            env=os.environ | {"RAY_ADDRESS": made["address"]},
            stdout=subprocess.PIPE,
            text=True,
        )
        while ACTION not in service.asked and watch.poll() is None and hung.is_alive():
            time.sleep(0.1)
        assert watch.poll() is None
        assert ACTION in service.asked
        assert "libtorch" not in Path(f"/proc/{watch.pid}/maps").read_text()
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=90)
        service.answers[ACTION] = json.dumps({"action": "terminate", "time": f"{end:%Y-%m-%dT%H:%M:%SZ}"})
        told, _ = watch.communicate(timeout=120)
        assert watch.returncode == 0, told
        assert json.loads(cluster.stdout.readline()) == {made["worker"]: int(end.timestamp() * 1000)}
        assert f"drained: {made['worker']}" in told
    finally:
        hung.cancel()
        if watch is not None:
            watch.kill()
        cluster.stdin.close()
        cluster.wait(timeout=60)
