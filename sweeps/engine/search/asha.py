"""Early stopping: asynchronous successive halving by epochs and the sweep's first goal on val."""

from collections.abc import Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeps.engine.plan.plan import Plan
from sweeps.engine.plan.searches import GridPoint, grid_point_of


class Judge:
    """Verdicts of early stopping. A cell goes on while it is among the best 1 / eta of those at its rung so far.

    What was judged by earlier launches counts, each cell once per rung. A cell that begins again repeats its reports:
    where it went on before, it goes on; a verdict never changes. Candidates are judged among those of their own grid
    point; references and the winners' other seeds are not judged. Without early stopping no cell is.
    """

    def __init__(self, plan: Plan) -> None:
        self._sweep = plan.sweep
        self._asha = plan.sweep.early_stopping
        self._goal = plan.sweep.goals[0]
        self._seen: dict[str, dict[int, float]] = {}  # cell -> rung -> score
        self._rungs: dict[tuple[GridPoint, int], list[float]] = {}  # group, rung -> scores, in no order
        self._verdicts: dict[tuple[str, int], str] = {}  # cell, rung -> why it is stopped, "" where it goes on
        self._references = {cell.key for cell in plan.fixed if cell.role == "reference"}
        known = {cell.key for cell in plan.known}
        for entry in plan.entries.values() if self._asha else ():
            if entry.key not in known or (group := self._group(entry.key, entry.params)) is None:
                continue
            for rung, score in entry.rungs.items():
                self._record(entry.key, group, rung, score)
                if rung < entry.epoch:
                    self._verdicts[entry.key, rung] = ""

    def seen(self, key: str) -> Mapping[int, float]:
        """Rung -> score, of the places at which a cell was judged."""
        return self._seen.get(key, {})

    def reason(self, key: str) -> str:
        """Reason why a cell was stopped, "" if it was not."""
        return "".join(why for (cell, _), why in self._verdicts.items() if cell == key)

    def judge(self, key: str, flat: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        """Reason to stop a cell after a report, "" if it goes on.

        Args:
            flat: the cell's config.
        """
        if self._asha is None:
            return ""
        group, epoch = self._group(key, flat), int(metrics["epoch"])
        if group is None or epoch not in self._asha.rungs(int(flat["epochs"])):
            return ""
        if (key, epoch) in self._verdicts:
            return self._verdicts[key, epoch]
        score = self._goal.score(metrics, flat)
        if score != score:
            return ""
        self._record(key, group, epoch, score)
        scores = self._rungs[group, epoch]
        ahead = sum(self._goal.better(other, score) for other in scores)
        why = ""
        if ahead >= max(1, len(scores) // self._asha.eta):
            best = f"the best 1/{self._asha.eta} of {len(scores)}"
            why = f"early stopping at epoch {epoch}: {score:.4g} is not among {best}"
        self._verdicts[key, epoch] = why
        return why

    def _group(self, key: str, flat: Mapping[str, Any]) -> GridPoint | None:
        """The group in which a cell is judged: its grid point in a search, () in an ablation; None where it is not."""
        if key in self._references:
            return None
        if not self._sweep.space:
            return ()
        return grid_point_of(self._sweep, flat) if str(flat["seed"]) == str(self._sweep.seeds[0]) else None

    def _record(self, key: str, group: GridPoint, rung: int, score: float) -> None:
        if rung not in self._seen.setdefault(key, {}):
            self._seen[key][rung] = score
            self._rungs.setdefault((group, rung), []).append(score)


class AshaScheduler(FIFOScheduler):
    """Tune scheduler that asks the judge after every report of a trial."""

    supports_buffered_results = False  # a verdict that comes late costs epochs

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self._judge = judge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        """STOP for a cell that is stopped early; reports about a cell's end or its workers are not judged."""
        if "status" in result or "note" in result:
            return TrialScheduler.CONTINUE
        stopped = self._judge.judge(trial.config["cell_key"], trial.config, result)
        return TrialScheduler.STOP if stopped else TrialScheduler.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its scheduler into the experiment folder, which is disposable."""
        return {}
