"""Early stopping: asynchronous successive halving by epochs and the sweep's first goal on val."""

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeps.engine.plan.plan import Plan
from sweeps.engine.plan.searches import GridPoint, grid_point_of

_Point = tuple[str, ...]  # the values on the sweep's axes; of an ablation the cell's key


class Judge:
    """Verdicts of early stopping. A point goes on while it is among the best 1 / eta of those at its rung so far.

    A point is a candidate of a search, with all the seeds of its trial, or a cell of an ablation. It is judged once per
    rung, by the mean over its seeds when the last of them has reached the rung; the others wait there. So its seeds are
    stopped or go on together. A point whose mean is NaN goes on and does not count. A seed that has failed, or that had
    passed the rung before it was one, is not waited for; one that has diverged or collapsed stops the others.

    What was judged by earlier launches counts. A cell that begins again repeats its reports: where it went on before,
    it goes on; a verdict never changes. Candidates are judged among those of their own grid point; references and the
    winners' other seeds are not judged. Without early stopping nothing is.
    """

    def __init__(self, plan: Plan) -> None:
        self._sweep = plan.sweep
        self._asha = plan.sweep.early_stopping
        self._goal = plan.sweep.goals[0]
        self._seen: dict[str, dict[int, float]] = {}  # cell -> rung -> score
        self._passed: dict[_Point, dict[str, float]] = {}  # point -> cell -> epoch up to which it is not waited for
        self._lost: dict[_Point, str] = {}  # points of which a seed ended badly -> its status
        self._rungs: dict[tuple[GridPoint, int], dict[_Point, float]] = {}  # group, rung -> scores, in no order
        self._verdicts: dict[tuple[_Point, int], str] = {}  # point, rung -> why it is stopped, "" where it goes on
        self._reasons: dict[str, str] = {}  # of cells that were stopped, or that wait
        self._waiting: set[str] = set()
        self._references = {cell.key for cell in plan.fixed if cell.role == "reference"}
        known = {cell.key for cell in plan.known}
        entries = [entry for entry in plan.entries.values() if entry.key in known] if self._asha else []
        places = [(entry, place) for entry in entries if (place := self._place(entry.key, entry.params))]
        for entry, (_, point) in places:
            self._seen[entry.key] = dict(entry.rungs)
            self._passed.setdefault(point, {})[entry.key] = entry.epoch
            if not plan.rules.due(entry):
                self.end(entry.key, entry.params, entry.status)
            for rung in entry.rungs:
                if rung < entry.epoch or entry.status == "pruned":
                    self._verdicts[point, rung] = "" if rung < entry.epoch else entry.reason
        for entry, (group, point) in places:
            for rung in entry.rungs:
                self._score(group, point, rung)

    def seen(self, key: str) -> Mapping[int, float]:
        """Rung -> score, of the places at which a cell was judged."""
        return self._seen.get(key, {})

    def reason(self, key: str) -> str:
        """Reason why a cell was stopped or waits, "" if neither."""
        return self._reasons.get(key, "")

    def waits(self, key: str) -> bool:
        """True for a cell that was stopped until the other seeds of its point have reached its rung."""
        return key in self._waiting

    def end(self, key: str, flat: Mapping[str, Any], status: str) -> None:
        """Learn the end of a cell."""
        if (place := self._place(key, flat)) is None or status == "interrupted":
            return
        self._passed.setdefault(place[1], {})[key] = math.inf
        if status in ("diverged", "collapsed"):
            self._lost[place[1]] = status

    def judge(self, key: str, flat: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        """Reason to stop a cell after a report, "" if it goes on; see also waits.

        Args:
            flat: the cell's config.
        """
        if self._asha is None:
            return ""
        place, epoch = self._place(key, flat), int(metrics["epoch"])
        if place is None or epoch not in self._asha.rungs(int(flat["epochs"])):
            return ""
        group, point = place
        self._waiting.discard(key)
        if (point, epoch) not in self._verdicts:
            self._passed.setdefault(point, {}).setdefault(key, 0)
            self._seen.setdefault(key, {}).setdefault(epoch, self._goal.score(metrics, flat))
            score = self._score(group, point, epoch)
            if score is None and point not in self._lost:
                self._waiting.add(key)
                self._reasons[key] = f"waits at epoch {epoch} for the other seeds of its point"
                return self._reasons[key]
            self._verdicts[point, epoch] = self._verdict(group, point, epoch, score)
        self._reasons[key] = self._verdicts[point, epoch]
        return self._reasons[key]

    def _verdict(self, group: GridPoint, point: _Point, epoch: int, score: float | None) -> str:
        """The reason to stop a point at a rung, "" if it goes on. score: None only where another seed is lost."""
        assert self._asha is not None
        if point in self._lost or score is None:
            return f"early stopping at epoch {epoch}: another seed has {self._lost[point]}"
        scores = self._rungs[group, epoch].values()
        better = sum(self._goal.better(other, score) for other in scores)
        if math.isnan(score) or better < max(1, len(scores) // self._asha.eta):
            return ""
        best = f"the best 1/{self._asha.eta} of {len(scores)}"
        return f"early stopping at epoch {epoch}: {score:.4g} is not among {best}"

    def _place(self, key: str, flat: Mapping[str, Any]) -> tuple[GridPoint, _Point] | None:
        """Group and point of a cell: of a search its grid point and its values; of an ablation () and the cell itself.

        None where it is not judged.
        """
        sweep = self._sweep
        if key in self._references:
            return None
        if not sweep.space:
            return (), (key,)
        if str(flat["seed"]) not in map(str, sweep.seeds[: sweep.seeds_per_trial]):
            return None
        return grid_point_of(sweep, flat), tuple(str(flat.get(axis, "")) for axis in sweep.axes)

    def _score(self, group: GridPoint, point: _Point, rung: int) -> float | None:
        """Mean over the seeds of a point at a rung once they are all there, None before; NaN is not recorded."""
        scores = self._rungs.setdefault((group, rung), {})
        if point in scores:
            return scores[point]
        seen = [self.seen(key)[rung] for key in self._passed[point] if rung in self.seen(key)]
        come = sum(rung in self.seen(key) or rung < passed for key, passed in self._passed[point].items())
        each = self._sweep.seeds_per_trial if self._sweep.space else 1
        if (point, rung) not in self._verdicts and come < each:
            return None
        mean = fmean(seen)
        if not math.isnan(mean):
            scores[point] = mean
        return mean


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
