"""A small sweep's file, and cells that end without training, recorded in the store by the ledger of a launch."""

from collections.abc import Callable, Iterable, Mapping

from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.spec.cells import Cell


def record(
    plan: Plan, cells: Iterable[Cell], metrics: Callable[[Cell], Mapping[str, float]], *, status: str = "finished"
) -> Plan:
    """Launch a plan in which these cells report once and end so. Returns the plan."""
    ledger = Ledger(plan, note=print, publish=str)
    for cell in cells:
        ledger.start(cell, devices=1.0)
        ledger.log(cell.key, metrics(cell))
        ledger.end(cell.key, status, "")
    assert ledger.close() == ""
    return plan


def small_sweep(name: str, *, epochs: int = 1, fields: str = "cpus_per_worker=2") -> str:
    """Text of the file of a sweep with two short cells on digits."""
    return f'''"""Two cells on digits."""
import dataclasses, sys
from jepa_train.methods import LeJEPA
from jepa_train.config.presets import DIGITS
from sweeps.engine import Sweep, main
base = dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs={epochs}, global_batch=256)
SWEEP = Sweep(name="{name}", purpose=__doc__, base=base, grid={{"method.lamb": [0.02, 0.05]}}, {fields})
if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
'''
