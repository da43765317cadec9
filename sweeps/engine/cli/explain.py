"""--explain: the state of a cell with its reason, config and checkpoints."""

from collections.abc import Collection
from datetime import datetime
from urllib.parse import unquote

from mlflow.entities import Run

from jepa_train.base.errors import ConfigError
from jepa_train.config.flat import flatten
from jepa_train.storage.paths import results_dir
from jepa_train.storage.storage import checkpoints_dir
from sweeps.engine.cli.status import Facts
from sweeps.engine.plan.cell_state import is_done
from sweeps.engine.plan.plan import Plan, Row
from sweeps.engine.spec.cells import setting_of
from sweeps.engine.store.code_version import code_of
from sweeps.engine.store.mlflow_client import open_client
from sweeps.engine.store.reader import Entry, store_uri


def explain(plan: Plan, word: str) -> list[Facts]:
    """The facts of --explain, one entry per cell; none if the sweep has no such cell.

    Args:
        word: the cell's key, the beginning of the key, or the label; or the label without the seed, for all its seeds.

    Raises:
        ConfigError: the word fits several cells; StorageError: the storage of the checkpoints is away.
    """
    entries = {entry.key: entry for entry in plan.stored.cells}
    rows = {row.cell.key: row for row in plan.rows()}
    labels = {key: entry.label for key, entry in entries.items()} | {key: rows[key].cell.label for key in rows}
    settings = {key: setting_of(entry.label, entry.params.get("seed", "")) for key, entry in entries.items()}
    settings |= {key: rows[key].cell.setting for key in rows}
    return [
        _facts(plan, rows.get(key), entries.get(key), key, labels[key])
        for key in _keys_of(labels, settings, word, rows.keys())
    ]


def _facts(plan: Plan, row: Row | None, entry: Entry | None, key: str, label: str) -> Facts:
    """The facts of one cell: of the plan, of the store, or of both."""
    run = open_client(store_uri()).get_run(entry.run_id) if entry is not None else None
    base = {name: str(value) for name, value in flatten(plan.base).items()}
    in_file = {name: str(value) for name, value in flatten(row.cell.config).items()} if row else {}
    config = in_file or (entry.params if entry else {})
    folder = checkpoints_dir(plan.sweep.name) / key
    return {
        "sweep": plan.sweep.name,
        "key": key,
        "label": label,
        "state": plan.rules.state(entry),
        "why": _why(plan, entry, run, in_file=row is not None),
        "in_file": row is not None,
        "run_id": entry.run_id if entry else None,
        "checkpoints": [str(folder / name) for name in folder.names() if name.endswith(".pt")],
        "config": config,
        "base": {name: base.get(name) for name, text in config.items() if base.get(name) != text},
    }


def explain_lines(facts: Facts) -> list[str]:
    """The facts of --explain as lines of text."""
    lines = [f"{facts['sweep']}: {facts['label']} ({facts['key']})", f"  {facts['state']}: {facts['why']}"]
    lines += [f"  MLflow run {facts['run_id']}"] if facts["run_id"] else []
    lines += [f"  checkpoint {file}" for file in facts["checkpoints"]] or ["  no checkpoint on this machine"]
    lines.append("  config, * where it differs from the sweep's base:")
    width = max(len(name) for name in facts["config"])
    for name, text in facts["config"].items():
        mark, of_base = ("*", f"  (base: {facts['base'][name] or 'nothing'})") if name in facts["base"] else (" ", "")
        lines.append(f"  {mark} {name:<{width}}  {text}{of_base}".rstrip())
    return lines


def _keys_of(labels: dict[str, str], settings: dict[str, str], word: str, in_file: Collection[str]) -> list[str]:
    """The key of the one cell that the word fits, or of the cells of a label without seed; of equal labels, those that
    the sweep's file asks for."""
    if word in labels:
        return [word]
    by_label, by_setting = ([key for key, text in texts.items() if text == word] for texts in (labels, settings))
    fitting = by_label or by_setting or [key for key in labels if key.startswith(word)]
    fitting = [key for key in fitting if key in in_file] or fitting
    if len(fitting) > 1 and fitting[0] not in by_setting:
        cells = ", ".join(f"{key} ({labels[key]})" for key in sorted(fitting)[:5])
        raise ConfigError(f"--explain {word} fits {len(fitting)} cells: {cells}; write more of the key")
    return fitting


def _why(plan: Plan, entry: Entry | None, run: Run | None, *, in_file: bool) -> str:
    """The reason of the state, in one sentence."""
    if entry is None or run is None:
        return "never begun; the next launch runs it"
    state, note = plan.rules.state(entry), plan.rules.note(entry, int(entry.params.get("epochs", 0)))
    gone = "" if in_file else "; the sweep's file does not ask for it any more"
    ended = _time(run.info.end_time)
    if state == "running":
        return f"{note}, since {_time(run.info.start_time)}{gone}"
    if state == "interrupted":
        how = "" if entry.status == "interrupted" else "; its launch is gone"
        return f"{note}{how}{gone or '; the next launch goes on with it'}"
    if entry.outdated and is_done(state):
        gone = f"; outdated, the present code is {code_of(entry.params).version}: --retry outdated runs it again{gone}"
    if state == "pruned":
        rung = f" at epoch {max(entry.rungs)}: {entry.rungs[max(entry.rungs)]:.4g}" if entry.rungs else ""
        return f"given up {ended} by early stopping{rung} for {plan.sweep.goals[0].name}{gone}"
    if state == "failed":
        moved = results_dir() / "artifacts" / plan.sweep.name / run.info.run_id / "artifacts"
        place = moved if moved.is_dir() else unquote(run.info.artifact_uri.removeprefix("file://"))
        return f"{note} ({ended}; traceback in {place}/traceback.txt); it runs again with --retry failed{gone}"
    return f"{ended}, {note or f'all {entry.epoch} epochs'}{gone}"


def _time(milliseconds: int | None) -> str:
    """Local time; an interrupted server may have left none."""
    return f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M}" if milliseconds else "at an unknown time"
