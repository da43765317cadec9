"""Controllers of lanes in the driver's process: notices reach all ranks, and a lane that is killed ends.

Run: python -m pytest tests/unit/lanes/test_pool.py
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train.v2.api.preemption import PreemptionInfo

from sweeps.engine.cluster import ray_private
from sweeps.engine.lanes.pool import LanePool


class Rank:
    """A worker as Ray Train lists it, which keeps what it is told."""

    def __init__(self, rank: int, node: str) -> None:
        self.metadata = SimpleNamespace(node_id=node)
        self.distributed_context = SimpleNamespace(world_rank=rank)
        self.actor = SimpleNamespace(mark_preempt=SimpleNamespace(remote=lambda info: self.heard.append(info)))
        self.heard: list[PreemptionInfo] = []


def test_a_notice_about_a_node_of_the_group_reaches_every_rank_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = [Rank(0, "a"), Rank(1, "b"), Rank(2, "a")]
    healthy = SimpleNamespace(errors={})
    callback = ray_private.controller_callback(lambda _: None, watched=True)
    callback.after_worker_group_start(SimpleNamespace(get_workers=lambda: ranks))
    for draining in ({}, {"other": 5}, {"other": 5, "b": 0}, {"b": 0}, {}, {"b": 0}, {"b": 0, "a": 7}):
        monkeypatch.setattr(ray_private, "draining_nodes", lambda draining=draining: draining)
        callback.after_worker_group_poll_status(healthy)
    told = [
        PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"b": [1]}),
        PreemptionInfo(deadline_ms=7, preempted_node_to_ranks={"b": [1], "a": [0, 2]}),
    ]
    assert [rank.heard for rank in ranks] == [told] * 3
    callback.after_worker_group_start(SimpleNamespace(get_workers=lambda: ranks[:2]))
    callback.after_worker_group_poll_status(SimpleNamespace(errors={0: ValueError()}))
    assert len(ranks[0].heard) == 2, "a group that is about to be replaced is told nothing"
    callback.after_worker_group_poll_status(healthy)
    assert ranks[0].heard[-1].preempted_ranks == [0, 1], "a new group on a node that leaves is told too"


def test_a_lane_that_was_killed_ends_although_its_workers_seem_to_run(tmp_path: Path) -> None:
    """As where their machine cannot be reached: Ray misses it after a minute only."""
    one: dict[str, Any] = {"num_lanes": 1, "workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    pool = LanePool(**one, storage=tmp_path)
    pool.mailbox = None
    callback, *_ = pool._trainer(0)._create_default_callbacks()
    callback.after_worker_group_poll_status(SimpleNamespace(errors={}))
    pool._kill()
    with pytest.raises(SystemExit):
        callback.after_worker_group_poll_status(SimpleNamespace(errors={}))
