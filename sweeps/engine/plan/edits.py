"""Edits of a sweep's file or command line since its last launch: the numbers of new and of dropped cells."""

import json
from collections.abc import Sequence
from dataclasses import replace

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.config.names import is_pretrained_tag
from jepa_train.model.own_encoder import source_hash
from jepa_train.train.preflight import CheckedData
from sweeps.engine.plan.cell_state import Rules
from sweeps.engine.plan.plan import Plan, resolved_base
from sweeps.engine.plan.searches import grid_point_of
from sweeps.engine.spec.cells import CheckData, changed, data_checked_by, fixed_cells, grid_points
from sweeps.engine.spec.search_space import point_of
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import StoredSweep


def edits_of(plan: Plan) -> dict[str, int]:
    """Numbers of cells that the last launch did not ask for, "new", and that only it asked for, "dropped".

    Both are 0 without a launch that recorded its cells. Cells that a search has started stay its own as long as they
    are points of it. Cells that it has still to choose, and those that it chose without beginning them, are neither.
    """
    stored = plan.stored
    if stored.requested is None or "sweep.total" not in stored.tags:
        return {"new": 0, "dropped": 0}
    kept = {cell.key for cell in plan.known} | _points_of_searches(plan)
    if stored.tags.get("sweep.searched") != "[]":
        kept |= {*stored.requested} - {entry.key for entry in stored.runs}
    dropped = len({*stored.requested} - kept)
    return {"new": max(0, plan.total - (int(stored.tags["sweep.total"]) - dropped)), "dropped": dropped}


def edits_in_store(sweep: Sweep, stored: StoredSweep, rules: Rules, words: Sequence[str]) -> dict[str, int]:
    """The edits since the last launch, without access to the data, whose identity the store has.

    Args:
        words: assignments of the command line.
    """
    try:
        with data_checked_by(_recorded_data(sweep, stored)):
            base = resolved_base(sweep, words)
            cells, entries = tuple(fixed_cells(sweep, base)), stored.entries(sweep, base)
            return edits_of(Plan(sweep, base, cells, entries, rules=rules, stored=stored).with_searches())
    except ConfigError:  # its base is the best cell of a sweep that is not in this store
        return {"new": 0, "dropped": 0}


def _points_of_searches(plan: Plan) -> set[str]:
    """Keys of the cells in the store that a search of the sweep may have started: also the seeds of its winner."""
    sweep, seeds = plan.sweep, {*map(str, plan.sweep.seeds)}
    if not plan.searches:
        return set()
    points = {grid_point_of(sweep, flatten(changed(plan.base, point))) for point in grid_points(sweep)}
    return {
        entry.key
        for entry in plan.entries.values()
        if entry.role == "cell"
        and entry.params.get("seed") in seeds
        and grid_point_of(sweep, entry.params) in points
        and point_of(sweep.domains, entry.params, plan.base) is not None
    }


def _recorded_data(sweep: Sweep, stored: StoredSweep) -> CheckData:
    """The data of a config with the identity that the store has for its name and path; as it is if it has none. So too
    for its initial weights.

    The path may be another on this machine, so it does not count unless the sweep varies it.
    """
    recorded = [*(entry.params for entry in stored.cells), json.loads(stored.tags.get("sweep.base", "{}"))]  # last wins
    names = ("data.name", "data.path") if "data.path" in sweep.axes else ("data.name",)
    known = {
        tuple(params.get(name) for name in names): {
            name: params.get(f"data.{name}", "") for name in ("fingerprint", "content")
        }
        for params in recorded
    }

    weights_ids = {params.get("model.weights"): params.get("model.weights_id", "") for params in recorded}

    def check(config: TrainConfig) -> CheckedData:
        flat = flatten(config)
        identity = known.get(tuple(str(flat[name]) for name in names), {})
        data = config.data if config.data.fingerprint else replace(config.data, **identity)
        weights = config.model.weights
        of_base = weights if is_pretrained_tag(weights) else recorded[-1].get("model.weights_id", "")
        return CheckedData(
            config=data,
            encoder_hash=source_hash(config.model.encoder),
            weights_id=weights_ids.get(weights, of_base),
        )

    return check
