"""The Tune trial: passes its cell to a lane and relays the lane's reports. Imports no torch, so that it starts fast."""

from collections.abc import Callable, Collection
from typing import Any

import ray
from ray import tune


def trial(config: dict[str, Any], *, mailbox: Any, checkpoints: str, rungs: Collection[int]) -> None:
    """Run one cell, given its key and its complete flat config. A failed cell is a result, not an exception.

    The last report repeats the last metrics and adds the cell's final status: `status` (finished, diverged, collapsed,
    stopped, failed, or interrupted where no lane is left), `reason` and `traceback`. A report with a `note` describes
    an event, with the last metrics again; see Task.add_note. A restarted process relays all reports from the first on.

    Raises:
        RayActorError: the mailbox died.
    """
    job = {"cell": config, "checkpoints": checkpoints, "rungs": rungs}
    owner = tune.get_context().get_trial_id()
    ticket = ray.get(mailbox.submit.remote(owner, job))
    last: dict[str, Any] = {}
    taken, end = 0, None
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
        mailbox.abandon_trial.remote(owner)


def make_trial(mailbox: Any, checkpoints: str, *, rungs: Collection[int] = ()) -> Callable[[dict[str, Any]], None]:
    """The trainable of a Tuner whose trials use the lanes of this mailbox; to be used with reuse_actors=True.

    Args:
        checkpoints: path or URL of the sweep's checkpoints, as the workers see it.
        rungs: epochs at which a cell waits for the scheduler's decision; elsewhere it trains on meanwhile.
    """
    parameters = {"mailbox": mailbox, "checkpoints": checkpoints, "rungs": tuple(rungs)}
    # On the head node, where the driver is, and without a CPU: the lanes own all of them.
    return tune.with_resources(tune.with_parameters(trial, **parameters), {"node:__internal_head__": 0.001})
