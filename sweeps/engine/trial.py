"""The Tune trial: hands its cell to a lane and relays the lane's reports. Trains nothing, so it must stay light."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.cloudpickle
from ray import tune

# By value, because importing sweeps.engine brings torch and MLflow, which every trial's process would pay for.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def trial(config: dict[str, Any], *, mailbox: Any, checkpoints: str) -> None:
    """One cell, from a complete flat config. Its own failure is a result, not an exception.

    The last report repeats the last metrics and adds how the cell ended: `status` (finished, diverged, collapsed,
    stopped or failed), `reason` and `traceback`. A cell that failed in its first epoch reports these three alone.

    Raises:
        RuntimeError: no lane is left; RayActorError: the mailbox died.
    """
    job = {"cell": config, "checkpoints": checkpoints}
    ticket = ray.get(mailbox.submit.remote(tune.get_context().get_trial_id(), job))
    last: dict[str, float] = {}
    taken, end = 0, None
    try:
        while end is None:
            reports, end = ray.get(mailbox.take.remote(ticket, taken))
            taken += len(reports)
            for metrics in reports:
                last |= metrics
                tune.report(metrics)
        tune.report({**last, **end})
    finally:  # also where Tune stops the trial, which raises in tune.report
        mailbox.abandon.remote(ticket)


def make_trial(mailbox: Any, checkpoints: Path) -> Callable[[dict[str, Any]], None]:
    """The trainable for a Tuner whose trials use the lanes behind this mailbox; use it with reuse_actors=True.

    Args:
        checkpoints: the sweep's folder of checkpoints, as the workers see it.
    """
    # On the head node, where the driver is, and without a CPU: the lanes own all of them.
    return tune.with_resources(
        tune.with_parameters(trial, mailbox=mailbox, checkpoints=str(checkpoints)), {"node:__internal_head__": 0.001}
    )
