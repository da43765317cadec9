"""Later evaluation: finished cells once more through other protocols, by their checkpoints, into the runs they have."""

from collections.abc import Sequence

from rich.console import Console

from jepa_train.checks import ConfigError
from jepa_train.paths import checkpoints_dir
from sweeps.engine.plan import Plan
from sweeps.engine.tracking import Ledger


def reevaluate(plan: Plan, ledger: Ledger, words: Sequence[str], console: Console) -> int:
    """Evaluate every finished cell in this process and add the metrics to its run. Nothing is trained.

    Args:
        words: assignments such as probe.protocols=kshot and data.path=DIR.

    Returns:
        How many finished cells have no checkpoint that can be read here.
    """
    # torch and timm are imported when there is something to evaluate
    from jepa_train.train import evaluate_checkpoint

    finished = [entry for entry in plan.entries.values() if entry.status == "finished"]
    lost = 0
    for number, entry in enumerate(finished, 1):
        file = checkpoints_dir(plan.sweep.name) / entry.key / "final.pt"
        try:
            metrics = evaluate_checkpoint(file, words)
        except ConfigError as error:
            lost += 1
            console.print(f"  {number}/{len(finished)}  {entry.label}: {error}", highlight=False, soft_wrap=True)
            continue
        ledger.log(entry.run_id, metrics)
        added = ", ".join(sorted({name.partition("/")[2] for name in metrics if "/" in name}))
        console.print(f"  {number}/{len(finished)}  {entry.label}: {added}", highlight=False, soft_wrap=True)
    return lost
