"""Modes of a command line that has been read: launch, dry run, status, explanation, evaluation."""

import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlflow.exceptions import MlflowException
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from analysis.store.uri import NothingToShow, store_line
from jepa_train.base.errors import ConfigError, nearest
from jepa_train.config.names import is_pretrained_tag
from jepa_train.storage.paths import results_dir
from jepa_train.storage.storage import StorageError, storage_dir
from sweeps.engine.cli.args import Options
from sweeps.engine.cli.explain import explain, explain_lines
from sweeps.engine.cli.preview import preview, preview_lines
from sweeps.engine.cli.status import Facts, status, status_lines, watch_status
from sweeps.engine.cluster.folders import check_results_folder, check_shared_storage
from sweeps.engine.parser import interrupted, refuse
from sweeps.engine.plan.choice import read_choice
from sweeps.engine.plan.plan import Plan, make_plan, overridden
from sweeps.engine.spec.cells import data_facts, list_data, num_unread, read_data, weights_facts
from sweeps.engine.spec.sweep import BestOf, Sweep
from sweeps.engine.store.experiment import check_writable_store
from sweeps.engine.store.lock import hold, holder_of
from sweeps.engine.store.mlflow_client import root_cause
from sweeps.engine.store.reader import shown_uri, store_uri

# Ray, timm and pandas take seconds to import: each only where it is needed, and a launch starts Ray before the rest.

Named = Sequence[tuple[Sweep, Path]]  # sweeps, with their files
Plans = dict[str, Plan]  # by the sweep's name


def launch_sweeps(sweeps: Named, options: Options) -> int:
    """Run a command line on sweeps, one after another; cells run in one Ray session.

    Returns:
        0 if every cell has a result (divergence, collapse and early stopping are results), 1 if some have none or
        metrics wait in the offline queue, 2 for bad input or a storage that is away, 130 after Ctrl-C.
    """
    try:
        for number, (sweep, file) in enumerate(sweeps):
            _check_name(sweep, file, [before.name for before, _ in sweeps[:number]])
        sweeps = [(_with_words(sweep, options), file) for sweep, file in sweeps]
        results_dir()  # refuses a bad folder before the store in it is read
        if options.watch:
            sys.stderr.write(f"{store_line(store_uri(), shown_uri())}\n")
            watch_status([sweep for sweep, _ in sweeps], options.overrides, Console())
            return 0
        if options.status:
            return _show([status(sweep, options.overrides) for sweep, _ in sweeps], status_lines, options)
        storage_dir()  # refuses a bad URL before anything is planned
        plans = _planned(sweeps, options)
        if options.dry_run:
            return _show_plans(sweeps, plans, options)
        if options.explain:
            facts = [cell for plan in plans.values() for cell in explain(plan, options.explain)]
            if not facts:
                labels = [row.cell.label for plan in plans.values() for row in plan.rows()]
                remedy = nearest(options.explain, labels) or "; --dry-run lists them"
                raise ConfigError(f"--explain {options.explain} fits no cell{remedy}")
            return _show(facts, explain_lines, options, of="cells")
        if _reads_data(plans.values()):  # the cells are known only now
            plans = _planned(sweeps, options)
        if options.evaluate:
            return _evaluate(sweeps, plans, options)
        _check_before_start(sweeps, plans)
        return _run(sweeps, plans, options)
    except (ConfigError, StorageError, NothingToShow) as error:
        return refuse(error)
    except (MlflowException, SQLAlchemyError) as error:
        remedy = "see that it is up, or set MLFLOW_TRACKING_URI to another"
        return refuse(f"the store {shown_uri()} cannot be used ({root_cause(error)}); {remedy}")
    except KeyboardInterrupt:
        return interrupted()


def _check_name(sweep: Sweep, file: Path, before: Sequence[str]) -> None:
    if sweep.study != file.stem:
        raise ConfigError(
            f"name must be the stem of the sweep's file, got {sweep.study!r} in {file.name}; "
            f"write name={file.stem!r}, or rename the file"
        )
    if sweep.name in before:
        raise ConfigError(f"sweep {sweep.name} is given twice; name it once")


def _with_words(sweep: Sweep, options: Options) -> Sweep:
    """The sweep with the seeds of the command line, after a check of its overrides and its choice."""
    sweep = replace(sweep, seeds=options.seeds) if options.seeds else sweep
    if not isinstance(sweep.base, BestOf):
        overridden(sweep, sweep.base, options.overrides)
    read_choice(sweep, options.only, options.limit)
    return sweep


def _check_before_start(sweeps: Named, plans: Plans) -> None:
    """Check table files, resources, and the folders and stores that a launch writes to."""
    from analysis.tables import UnknownTable, file_beside, load_table_file
    from sweeps.engine.cluster.resources import check_machine

    for file in (file_beside(file) for _, file in sweeps):
        try:
            if file.is_file():
                load_table_file(file)
        except UnknownTable as error:
            raise ConfigError(str(error)) from None
    for plan in plans.values():
        if plan.todo:
            check_machine(plan.sweep)
    check_results_folder(results_dir())
    check_writable_store()
    check_shared_storage(storage_dir())


def _plan(sweep: Sweep, file: Path, options: Options, *, held: bool = False) -> Plan:
    choice = read_choice(sweep, options.only, options.limit)
    return make_plan(sweep, file, options.overrides, retry=options.retry, held=held, choice=choice)


def _planned(sweeps: Named, options: Options) -> Plans:
    """Every plan that can be made now, so that bad input is refused before the first sweep starts.

    A sweep whose base is the best cell of one before it on the same command line has none: the other has to run first.
    """
    plans: Plans = {}
    for number, (sweep, file) in enumerate(sweeps):
        before = [other.name for other, _ in sweeps[:number]]
        if not (isinstance(sweep.base, BestOf) and sweep.base.sweep in before):
            plans[sweep.name] = _plan(sweep, file, options, held=holder_of(sweep.name) is not None)
    return plans


def _reads_data(plans: Collection[Plan]) -> bool:
    """Read the images that this machine has not read yet, and download the pretrained weights of cells to run.

    Returns:
        True if the plans have to be made again.
    """
    from jepa_train.model.weights import fetch_weights
    from sweeps.engine.cluster.session import cluster_address

    models = {cell.config.model for plan in plans for cell in plan.missing}
    for encoder, tag in sorted({(model.encoder, model.weights) for model in models}):
        if is_pretrained_tag(tag):
            fetch_weights(encoder, tag)
    configs = [config for plan in plans for config in (plan.base, *(cell.config for cell in plan.known))]
    keep = any(plan.todo for plan in plans) and not cluster_address()  # else cells run on other machines
    return read_data(configs, keep=keep)


def _show_data(plan: Plan, shown: set[str], say: Callable[[str], None]) -> None:
    """Print the facts about a plan's images and initial weights that have not been printed yet."""
    configs = [cell.config for cell in (*plan.known, *plan.stand_ins)]
    texts = [f"data {facts}" for config in configs for facts in data_facts(config)]
    for text in dict.fromkeys([*texts, *map(weights_facts, configs)]):
        if text and text not in shown:
            shown.add(text)
            say(text)


def _show_plans(sweeps: Named, plans: Plans, options: Options) -> int:
    from sweeps.engine.run.price import price

    note, shown = _printer(Console(stderr=True)), set[str]()
    configs = [cell.config for plan in plans.values() for cell in (*plan.known, *plan.stand_ins)]
    list_data(configs)
    for plan in plans.values():
        _show_data(plan, shown, _printer(Console(stderr=options.json)))
    for unread in filter(None, map(num_unread, dict.fromkeys(config.data for config in configs))):
        note(
            f"{unread:,} images have not been read on this machine or may have changed since; a launch reads them, and "
            "runs new cells if their content is not that of earlier runs"
        )
    prices = {name: price(plan, note) for name, plan in plans.items()}
    facts = [preview(sweep, plans.get(sweep.name), prices.get(sweep.name)) for sweep, _ in sweeps]
    return _show(facts, preview_lines, options)


def _run(sweeps: Named, plans: Plans, options: Options) -> int:
    """Run and show each sweep. Ray starts only when a cell is missing, while the other libraries are imported."""
    from sweeps.engine.cluster.session import ray_session

    console = Console(stderr=options.json)
    all_facts, say = [], _printer(console)
    shown: set[str] = set()
    with ExitStack() as stack:
        # not where another launch holds a sweep: the refusal must not wait for Ray
        starts = any(plan.todo and not plan.rules.held for plan in plans.values())
        ready = stack.enter_context(ray_session(wait=False)) if starts else None
        from sweeps.engine.cli.summary import printed_table, summary, summary_lines
        from sweeps.engine.run.launch import Launch, browse_command

        launch = stack.enter_context(Launch(console, say, max_gpu_hours=options.max_gpu_hours, ready=ready))
        for sweep, file in sweeps:
            with _held(sweep, file, plans.get(sweep.name), options, say) as current:
                _show_data(current, shown, say)
                facts = summary(launch.run(current))
            say("\n".join(["", printed_table(facts), "", *summary_lines(facts)]))
            all_facts.append(facts)
    say(f"MLflow store: {shown_uri()}\nbrowse it with: {browse_command()}")
    _write_json(all_facts, options)
    return 0 if all(facts["complete"] for facts in all_facts) else 1


def _evaluate(sweeps: Named, plans: Plans, options: Options) -> int:
    """Evaluate finished cells by other protocols and add the metrics to their runs."""
    from sweeps.engine.run.launch import Launch

    console = Console(stderr=options.json)
    facts, say = [], _printer(console)
    with Launch(console, say) as launch:
        for sweep, file in sweeps:
            with _held(sweep, file, plans.get(sweep.name), options, say) as current:
                done, without, spooled = launch.evaluate(current)
            facts.append({"sweep": sweep.name, "evaluated": done, "without_checkpoint": without, "spooled": spooled})
    say(f"MLflow store: {shown_uri()}")
    _write_json(facts, options)
    return 1 if any(each["without_checkpoint"] or each["spooled"] for each in facts) else 0


@contextmanager
def _held(sweep: Sweep, file: Path, plan: Plan | None, options: Options, say: Callable[[str], None]) -> Iterator[Plan]:
    """Hold the sweep for the block. Yields its plan, after the operations that earlier launches left offline."""
    from sweeps.engine.run.ledger import replay_offline_queue

    with hold(sweep.name, say, take_over=options.take_over):
        replayed = replay_offline_queue(sweep.name)
        if replayed:
            say(f"{sweep.name}: {replayed} records that an earlier launch left offline are in the store now")
        if plan is None or isinstance(sweep.base, BestOf):  # the other sweep may have another best cell by now
            plan = _plan(sweep, file, options)
            if _reads_data([plan]):
                plan = _plan(sweep, file, options)
        else:
            plan = plan.refreshed()
        yield plan


def _show(
    facts: Sequence[Facts], lines_of: Callable[[Facts], list[str]], options: Options, *, of: str = "sweeps"
) -> int:
    """Print the store that they are read from, and the facts, as one JSON document or as text."""
    sys.stderr.write(f"{store_line(store_uri(), shown_uri())}\n")
    _write_json(facts, options, of=of)
    if not options.json:
        sys.stdout.write("\n\n".join("\n".join(lines_of(each)) for each in facts) + "\n")
    return 0


def _write_json(facts: Sequence[Facts], options: Options, *, of: str = "sweeps") -> None:
    if options.json:
        sys.stdout.write(json.dumps({of: facts}, indent=2, allow_nan=False) + "\n")


def _printer(console: Console) -> Callable[[str], None]:
    """Print lines unwrapped and without markup."""
    return partial(console.print, highlight=False, soft_wrap=True, markup=False)
