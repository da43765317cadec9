"""notice: the announcement of a cloud drains the node, whatever the metadata service answers before.

tests/slow/test_preemption.py drains a node of a real cluster.
Run: python -m pytest tests/unit/cluster/test_notice.py
"""

import io
import time
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from ray.exceptions import RpcError

from sweeps.__main__ import main
from sweeps.engine.cluster import notice

ACTION = '{"action": "terminate", "time": "2017-09-18T08:22:00Z"}'
DEADLINE = 1505722920.0  # date -d 2017-09-18T08:22:00Z +%s
MISSING = HTTPError("", 404, "Not Found", {}, None)  # type: ignore[arg-type]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [DEADLINE - 30.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    return now


def serve(monkeypatch: pytest.MonkeyPatch, answers: Iterator[Any]) -> None:
    """The clouds' services: AWS (IMDSv2) answers nobody without a token, Google nobody without its header."""

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert timeout == notice.TIMEOUT_S
        if request.full_url.endswith("/api/token"):
            assert request.method == "PUT"
            assert request.headers == {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
            return io.BytesIO(b"the token")
        google = request.full_url.startswith("http://metadata.google.internal/computeMetadata/v1/")
        header = {"Metadata-flavor": "Google"} if google else {"X-aws-ec2-metadata-token": "the token"}
        assert request.headers == header
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer.encode())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


@pytest.mark.parametrize(
    ("cloud", "answers"),
    [
        ("aws", [MISSING, URLError("away"), "<html>", '{"action": "stop"}', ACTION]),
        ("gcp", ["FALSE", URLError("away"), "TRUE"]),
    ],
)
def test_the_notice_drains_the_node(
    cloud: str, answers: list[Any], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    drained: list[int] = []
    serve(monkeypatch, iter(answers))
    monkeypatch.setattr(notice, "drain", lambda left_s: drained.append(left_s) or ["node"])
    assert main(["notice", cloud]) == 0
    assert drained == [30 if cloud == "gcp" else 30 - 4 * 5]
    assert clock[0] == DEADLINE - 30 + (2 * 1 if cloud == "gcp" else 4 * 5)


@pytest.mark.parametrize("error", [RuntimeError("head away"), RpcError("head away")])
@pytest.mark.usefixtures("clock")
def test_a_failing_drain_is_tried_until_the_deadline(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def drain(_: int) -> list[str]:
        raise error

    serve(monkeypatch, iter([ACTION]))
    monkeypatch.setattr(notice, "drain", drain)
    with caplog.at_level("INFO"):
        assert main(["notice", "aws"]) == 1
    assert caplog.text.count("not drained: head away") == 30  # one a second


def test_an_unknown_cloud_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notice", "azure"]) == 2
    assert capsys.readouterr().err.endswith("got 'azure'; write python -m sweeps notice aws|gcp\n")
