"""A sweep over edits of its file and of the code: its table, status and --retry outdated, without training.

The package is a copy in a repository of its own, which the hash reads in place of the checkout.

Run: python -m pytest tests/integration/store/test_outdated.py
"""

import dataclasses
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import MagicMock, Mock

import pytest
from launches import record
from mlflow import MlflowClient
from mlflow.entities import Run

from analysis.runs import load_runs
from analysis.tables import table
from jepa_train.base import checkout
from jepa_train.config.presets import DIGITS
from jepa_train.storage.storage import storage_path
from sweeps.engine.cli.explain import explain
from sweeps.engine.cli.preview import preview, preview_lines
from sweeps.engine.cli.status import status, status_lines
from sweeps.engine.plan.plan import Plan, make_plan
from sweeps.engine.run.callbacks import TrialEvents
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store import code_version, provenance
from sweeps.engine.store.mlflow_writer import MlflowWriter
from sweeps.engine.store.reader import store_uri

ROOT = Path(__file__).parents[3]
FILE = Path("sweeps/study.py")
SMALL = Sweep(
    name="study",
    purpose="A study.",
    base=dataclasses.replace(DIGITS, epochs=1),
    grid={"method.lamb": [0.02, 0.05], "views.num_global": [2, 4]},
    seeds=(0, 1),
)
LARGE = dataclasses.replace(SMALL, grid={"method.lamb": [0.02, 0.05, 0.1], "views.num_global": [2, 4]})
ALL = "12 of 12 runs are by other code than the present"


class Project:
    """The copy, with the commands of its user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "jepa_train", folder / "jepa_train", ignore=shutil.ignore_patterns("__pycache__"))
        self.git("init", "-b", "main")
        self.commit("first", "README.md")

    def git(self, *words: str) -> None:
        who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", "-C", str(self.folder), *who, *words], check=True, capture_output=True)

    def commit(self, text: str, file: str) -> None:
        (self.folder / file).write_text(text)
        self.git("add", ".")
        self.git("commit", "-m", text)

    def edit(self, file: str, line: str = "FACTOR = 2\n") -> None:
        with (self.folder / "jepa_train" / file).open("a") as stream:
            stream.write(line)

    def launch(self, sweep: Sweep, *retry: str, at_most: int = 99, score: float = 0.5, kind: str = "finished") -> Plan:
        """A new process that plans, and ends what is to run: each finished cell scores so on test."""
        code_version._code.cache_clear()
        provenance.git_state.cache_clear()
        provenance.code_tags.cache_clear()
        plan = make_plan(sweep, FILE, retry=frozenset(retry))
        scores = {"epoch": 1.0, "val/probe_top1": score, "test/linear_top1": score}
        return record(plan, plan.missing[:at_most], lambda _: scores, status=kind)


@pytest.fixture
def project(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[Project]:  # noqa: ARG001
    project = Project(tmp_path / "project")
    monkeypatch.setattr(checkout, "PROJECT", project.folder)
    yield project
    code_version._code.cache_clear()


def runs(role: str = "cell") -> list[Run]:
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study").experiment_id
    return client.search_runs([experiment], f"tags.role = '{role}'")


def shown() -> str:
    """The table with its notes."""
    return table("study", format="md")


def mean(score: float) -> str:
    """Mean and standard deviation of equal accuracies."""
    return f"{100 * score:.2f} ± 0.00" if "%" in shown() else f"{score:.4f} ± 0.0000"


def test_the_session_of_a_user(project: Project) -> None:
    """2 x 2 with two seeds, a commit, a value more, a commit, an interruption, a commit: one table without a mark."""
    project.launch(SMALL)
    project.commit("study.py is part of the project", "study.py")
    project.launch(LARGE, at_most=1)
    project.commit("a value more", "study.py")
    (cell, *_) = make_plan(LARGE, FILE).missing
    record(make_plan(LARGE, FILE), [cell], lambda _: {"epoch": 1.0}, status="interrupted")
    project.commit("a README", "README.md")
    assert project.launch(LARGE).todo == 3
    assert len({run.data.tags["mlflow.source.git.commit"] for run in runs()}) > 1
    assert mean(0.5) in shown()
    for mark in ("code", "outdated", "missing", "failed"):
        assert mark not in shown()
    assert status(LARGE)["outdated"] == make_plan(LARGE, FILE).outdated == 0

    project.edit("losses/ecf.py")
    assert project.launch(LARGE).todo == 0, "finished cells stay until they are to run again"
    assert f"outdated: lamb=0.02 num_global=2, lamb=0.02 num_global=4, {'lamb=0.05 num_global=2'}" in shown()
    assert f"({ALL}); python sweeps/study.py --retry outdated runs them again" in shown()
    line = "  12 outdated, by other code than the present; --retry outdated runs them again"
    assert line in status_lines(status(LARGE))
    plan = make_plan(LARGE, FILE)
    assert line in preview_lines(preview(LARGE, plan, None))
    (facts,) = explain(plan, plan.fixed[0].key)
    assert "outdated, the present code is " in facts["why"]
    (kept,) = runs("plan")
    client = MlflowClient(store_uri())
    patch = next(file.path for file in client.list_artifacts(kept.info.run_id) if file.path.endswith(".patch"))
    assert "+FACTOR = 2" in Path(client.download_artifacts(kept.info.run_id, patch)).read_text()

    assert project.launch(LARGE, "outdated", at_most=5, score=0.7).todo == 12
    assert "(7 of 12 runs are by other code than the present)" in shown()
    assert project.launch(LARGE, "outdated", score=0.7).todo == 7
    assert "outdated" not in shown()
    assert mean(0.7) in shown()
    keys = [run.data.tags["cell_key"] for run in runs()]
    assert len(keys) == len({*keys}) == 12, "one run per cell"
    history = runs("history")
    assert {run.data.tags["former_cell_key"] for run in history} == {*keys}
    assert {run.data.metrics["test/linear_top1"] for run in history} == {0.5}
    assert load_runs("study").attrs["notes"] == []


def test_an_edit_of_another_method_or_of_words_changes_nothing(project: Project) -> None:
    project.launch(SMALL)
    project.edit("methods/vicreg.py")
    project.edit("losses/rgg.py")
    project.edit("methods/lejepa.py", "# a comment\n")
    project.launch(SMALL)
    assert "outdated" not in shown()
    both = dataclasses.replace(SMALL, grid={"method": ["lejepa", "vicreg"]})
    project.launch(both)
    assert len({run.data.tags["code_version"] for run in runs()}) == 2
    assert "outdated" not in shown()
    project.edit("methods/vicreg.py")
    project.launch(both)
    assert "outdated: method=vicreg (2 of 4 runs" in shown()
    assert project.launch(both, "outdated").todo == 2


def test_a_failure_is_not_outdated_and_a_result_that_no_seed_finished_is(project: Project) -> None:
    one = dataclasses.replace(SMALL, grid={"method.lamb": [0.02]}, seeds=(0, 1, 2))
    project.launch(one, at_most=1, kind="failed")
    project.launch(one, at_most=1, kind="diverged")
    project.launch(one, at_most=1)
    project.edit("methods/lejepa.py")
    assert project.launch(one, at_most=0).todo == 0
    assert make_plan(one, FILE, retry=frozenset({"outdated"})).todo == 2
    assert make_plan(one, FILE, retry=frozenset({"outdated", "failed"})).todo == 3
    assert make_plan(one, FILE, retry=frozenset({"failed"})).todo == 1
    assert make_plan(one, FILE, retry=frozenset({"outdated"}), held=True).todo == 2


def test_a_result_by_an_old_checkpoint_and_new_code_is_of_both(project: Project) -> None:
    one = dataclasses.replace(SMALL, grid={}, seeds=(0,))
    first = project.launch(one, kind="interrupted").fixed[0]
    before = runs()[0].data.tags["code_version"]
    project.edit("methods/lejepa.py")
    code_version._code.cache_clear()
    plan = make_plan(one, FILE)
    record(plan, [first], lambda _: {"epoch": 1.0, "test/linear_top1": 0.5}, resumed=True)
    after = runs()[0].data.tags["code_version"]
    assert after == f"{before}, {code_version.code_of(plan.entries[first.key].params).version}"
    assert status(one)["outdated"] == 1
    assert project.launch(one, "outdated").todo == 1
    assert runs()[0].data.tags["code_version"] == after.partition(", ")[2]


def test_a_cell_that_runs_again_begins_without_the_checkpoints_of_other_code(project: Project, tmp_path: Path) -> None:
    one = dataclasses.replace(SMALL, grid={}, seeds=(0,))
    (cell,) = project.launch(one).fixed
    checkpoints = storage_path(tmp_path / "checkpoints")
    (checkpoints / cell.key / "final.pt").write_bytes(b"by the old code")
    project.edit("methods/lejepa.py")
    code_version._code.cache_clear()
    others = ("display", "judge", "request", "budget", "abandon")
    for retry, resumed in ((), True), (("outdated",), False):
        book = Ledger(make_plan(one, FILE, retry=frozenset(retry)), note=print, publish=str)
        ledger = Mock(knows=book.knows)
        events = TrialEvents(ledger=ledger, checkpoints=checkpoints, **dict.fromkeys(others, MagicMock()))
        events.announce(cell)
        events.on_trial_start(trial=Mock(trial_id="t", config={"cell_key": cell.key}))
        assert ledger.start.call_args.kwargs["resumed"] == resumed
        assert bool((checkpoints / cell.key).names()) == resumed
        assert book.close() == ""


def test_runs_that_were_recorded_without_a_version_are_compared_by_commits(project: Project) -> None:
    project.launch(SMALL)
    client = MlflowClient(store_uri())
    for number, run in enumerate(runs()):
        client.set_tag(run.info.run_id, "mlflow.source.git.commit", f"{number // 4}" * 40)
        client.set_tag(run.info.run_id, "git_dirty", "false")
        for tag in ("code_version", "code_modules"):
            client.delete_tag(run.info.run_id, tag)
    assert "code versions: 0000000 (4 runs), 1111111 (4 runs)" in shown()
    assert status(SMALL)["outdated"] == 0
    project.launch(LARGE)
    assert status(LARGE)["outdated"] == 8
    assert "(8 of 12 runs are by other code than the present)" in shown()
    assert make_plan(LARGE, FILE, retry=frozenset({"outdated"})).todo == 8


def test_a_later_evaluation_by_other_code_makes_a_number_outdated(project: Project) -> None:
    plan = project.launch(SMALL)
    client = MlflowClient(store_uri())
    run = runs()[0]
    client.set_tag(run.info.run_id, "evaluated_version", run.data.tags["code_version"])
    assert status(SMALL)["outdated"] == 0
    client.set_tag(run.info.run_id, "evaluated_version", "0" * 16)
    assert status(SMALL)["outdated"] == 1
    assert "(1 of 8 runs are by other code" in shown()
    assert plan.outdated == 0


def test_the_start_of_a_cell_that_runs_again_may_be_written_twice(project: Project) -> None:
    """The store carried a write out, and its answer was lost; or a later launch writes the offline queue."""
    written = []
    with pytest.MonkeyPatch.context() as patch:
        write = MlflowWriter.write
        patch.setattr(MlflowWriter, "write", lambda it, *given: written.append((it, given)) or write(it, *given))
        one = dataclasses.replace(SMALL, grid={}, seeds=(0,))
        project.launch(one)
        project.edit("methods/lejepa.py")
        written.clear()
        project.launch(one, "outdated", score=0.75)
    for writer, (key, operations) in [entry for entry in written if entry[1][0]]:
        MlflowWriter(writer.client, writer.experiment_id, {}, print).write(key, operations)
    (run,), (former,) = runs(), runs("history")
    assert [entry.run_id for entry in make_plan(one, FILE).stored.further] == [former.info.run_id], "its hours count"
    assert (run.data.metrics["test/linear_top1"], former.data.metrics["test/linear_top1"]) == (0.75, 0.5)
