"""Later evaluation: finished cells once more through other protocols, by their checkpoints, into the runs they have."""

from collections.abc import Mapping

from rich.console import Console

from jepa_train.base.errors import ConfigError
from jepa_train.config.flat import cell_fields, flatten
from jepa_train.storage.storage import StorageError, checkpoints_dir
from sweeps.engine.plan.plan import Plan
from sweeps.engine.store.ledger import Ledger


def reevaluate(plan: Plan, ledger: Ledger, console: Console) -> int:
    """Evaluate every finished cell in this process and add the metrics to its run. Nothing is trained.

    By the plan's protocols, on the plan's data: what decides no result comes from its base, not from the checkpoint.

    Returns:
        How many finished cells have no checkpoint that can be read here.
    """
    # torch and timm are imported when there is something to evaluate
    from jepa_train.train.loop import evaluate_checkpoint

    fields = flatten(plan.base)
    words = [f"{key}={fields[key]}" for key in fields.keys() - cell_fields(plan.base).keys() - set(plan.sweep.axes)]
    finished = [entry for entry in plan.entries.values() if entry.status == "finished"]
    lost = 0
    for number, entry in enumerate(finished, 1):
        file = checkpoints_dir(plan.sweep.name) / entry.key / "final.pt"
        try:
            metrics = evaluate_checkpoint(file, words)
        except (ConfigError, StorageError) as error:
            lost += 1
            console.print(f"  {number}/{len(finished)}  {entry.label}: {error}", highlight=False, soft_wrap=True)
            continue
        ledger.amend(entry, metrics)
        line = f"  {number}/{len(finished)}  {entry.label}: {_scores(metrics)}"
        console.print(line, highlight=False, soft_wrap=True)
    console.print("all metrics are in the cells' MLflow runs; browse them with: make ui")
    return lost


def _scores(metrics: Mapping[str, float]) -> str:
    """What the protocols found on test and on other data sets, on encoder features."""
    online = ("test/probe_top1", "test/projector_top1")
    judged = ("test/", "transfer/")
    names = [name for name in metrics if name.endswith("_top1") and name.startswith(judged) and name not in online]
    return ", ".join(f"{name} {metrics[name]:.3f}" for name in names if "_projector_" not in name)
