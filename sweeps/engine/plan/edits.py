"""Edits of a sweep's file or command line since its last launch: the numbers of new and of dropped cells."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.config.names import is_pretrained_tag
from jepa_train.model.own_encoder import source_hash
from jepa_train.train.preflight import CheckedData
from sweeps.engine.plan.cell_state import Rules
from sweeps.engine.plan.plan import Plan, resolved_base
from sweeps.engine.spec.cells import CheckData, data_checked_by, fixed_cells
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry, StoredSweep


def edits_of(plan: Plan) -> dict[str, int]:
    """Numbers of cells that the last launch did not ask for, "new", and that only it asked for, "dropped".

    Both are 0 without a launch that recorded its cells. Cells that a search has started stay its own as long as they
    are points of it. Cells that it has still to choose, and those that it chose without beginning them, are neither.
    """
    stored = plan.stored
    if stored.requested is None or "sweep.total" not in stored.tags:
        return {"new": 0, "dropped": 0}
    kept = {cell.key for cell in plan.known} | (_points_of_searches(plan) if plan.searches else set())
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
    """Keys of the cells in the store that differ in nothing but the seed from a known one: also the seeds of an earlier
    winner."""
    entries, known = plan.entries.values(), {cell.key for cell in plan.known}
    points = {_without_seed(entry) for entry in entries if entry.key in known}
    seeds = {*map(str, plan.sweep.seeds)}
    return {entry.key for entry in entries if entry.params.get("seed") in seeds and _without_seed(entry) in points}


def _without_seed(entry: Entry) -> object:
    """Equal for the seeds of a setting; runs of older versions have no group."""
    return entry.group or frozenset((entry.params | {"seed": ""}).items())


def _recorded_data(sweep: Sweep, stored: StoredSweep) -> CheckData:
    """The data of a config with the identity that the store has for its name and path; as it is if it has none. So too
    for its initial weights.

    The path may be another on this machine, so it does not count unless the sweep varies it.
    """
    recorded = [*(entry.params for entry in stored.cells), json.loads(stored.tags.get("sweep.base", "{}"))]
    names = ("data.name", "data.path") if "data.path" in sweep.axes else ("data.name",)

    def check(config: TrainConfig) -> CheckedData:
        flat = flatten(config)

        def latest(*keys: str) -> dict[str, str]:
            return next((one for one in reversed(recorded) if all(one.get(key) == str(flat[key]) for key in keys)), {})

        weights, of_data = config.model.weights, latest(*names)
        identity: dict[str, Any] = {name: of_data.get(f"data.{name}", "") for name in ("fingerprint", "content")}
        of_weights = latest("model.weights") or (
            {"model.weights_id": weights} if is_pretrained_tag(weights) else recorded[-1]
        )
        return CheckedData(
            config=config.data if config.data.fingerprint else replace(config.data, **identity),
            encoder_hash=source_hash(config.model.encoder),
            weights_id=of_weights.get("model.weights_id", ""),
        )

    return check
