"""The Tune trial: hands its cell to a lane and relays the lane's reports. Trains nothing, so it must stay light."""

import sys
import threading
from collections.abc import Callable, Collection
from typing import Any

import ray
import ray.cloudpickle
from ray import tune

BEAT_S = 10.0  # between two words that the trial lives: tune.report waits for a driver that may wait for the storage

# By value, because importing sweeps.engine brings torch and MLflow, which every trial's process would pay for.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def trial(config: dict[str, Any], *, mailbox: Any, checkpoints: str, rungs: Collection[int]) -> None:
    """One cell, from its key and its complete flat config. Its own failure is a result, not an exception.

    The last report repeats the last metrics and adds how the cell ended: `status` (finished, diverged, collapsed,
    stopped, failed, or interrupted where no lane is left), `reason` and `traceback`. A cell that failed in its first
    epoch reports these three alone. A report with a `note` says what happened to the cell, with the last metrics again;
    see Task.tell.

    A process that takes the place of one that died relays all reports from the first on.

    Raises:
        RayActorError: the mailbox died.
    """
    job = {"cell": config, "checkpoints": checkpoints, "rungs": rungs}
    ticket = ray.get(mailbox.submit.remote(tune.get_context().get_trial_id(), job))
    last: dict[str, Any] = {}
    taken, end, over = 0, None, threading.Event()
    threading.Thread(target=_beat, args=(mailbox, ticket, over), name="beat", daemon=True).start()
    try:
        while end is None:
            reports, end = ray.get(mailbox.take.remote(ticket, taken))
            taken += len(reports)
            for metrics in reports:
                if "note" not in metrics:
                    last |= metrics
                tune.report({**last, **metrics} if "note" in metrics else metrics)
        tune.report({**last, **end})
    finally:  # also where Tune stops the trial, which raises in tune.report
        over.set()
        mailbox.abandon.remote(ticket)


def _beat(mailbox: Any, ticket: int, over: threading.Event) -> None:
    while not over.wait(BEAT_S):
        mailbox.beat.remote(ticket)


def make_trial(mailbox: Any, checkpoints: str, *, rungs: Collection[int] = ()) -> Callable[[dict[str, Any]], None]:
    """The trainable for a Tuner whose trials use the lanes behind this mailbox; use it with reuse_actors=True.

    Args:
        checkpoints: path or URL of the sweep's checkpoints, as the workers see it.
        rungs: epochs at which a scheduler judges: there a cell waits for the verdict, elsewhere it trains on meanwhile.
    """
    parameters = {"mailbox": mailbox, "checkpoints": checkpoints, "rungs": tuple(rungs)}
    # On the head node, where the driver is, and without a CPU: the lanes own all of them.
    return tune.with_resources(tune.with_parameters(trial, **parameters), {"node:__internal_head__": 0.001})
