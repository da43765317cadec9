"""When a host is asked whether the machines stay: at looks, and every few seconds of training between them."""

import dataclasses

import pytest

from jepa_train.base import preemption
from jepa_train.base.preemption import Watch
from jepa_train.config import ProbeConfig
from jepa_train.config.presets import DIGITS
from jepa_train.train.loop import train
from jepa_train.train.trainer import Trainer


class Asked:
    """A host whose machine stays; the steps after which it was asked."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.now = 0

    def saved(self, _: float) -> None:
        pass

    def leaving(self) -> bool:
        self.steps.append(self.now)
        return False


def test_the_pace_says_how_many_steps_go_between_two_questions() -> None:
    asked = Asked()
    watch = Watch(asked)
    assert watch.due(1), "nobody knows yet how long a step takes"
    for rate, steps in ((2.0, 10), (0.5, 2), (0.01, 1), (1e300, 10**9)):
        watch.pace(rate)
        assert watch.leaving(100) is False
        assert [watch.due(100 + after) for after in (steps - 1, steps)] == [False, True], f"{rate} steps/s"
    assert len(asked.steps) == 4


@pytest.mark.parametrize(("notice_s", "steps"), [(0.0, [*range(1, 13)]), (1e9, [1, 2, 3, 6, 9, 12])])
def test_a_host_is_asked_at_looks_and_between_them_when_steps_are_long(
    notice_s: float, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks are after every third step. Until the first one every step may be a long one."""
    monkeypatch.setattr(preemption, "NOTICE_S", notice_s)
    asked, whole, looks = Asked(), Trainer.train_step, []

    def step(trainer: Trainer) -> None:
        whole(trainer)
        asked.now = trainer.step

    honest = Trainer.means
    monkeypatch.setattr(Trainer, "train_step", step)
    monkeypatch.setattr(Trainer, "means", lambda trainer: looks.append(trainer.step) or honest(trainer))
    config = dataclasses.replace(DIGITS, epochs=2, global_batch=200, probe=ProbeConfig(protocols="knn"))
    train(config, host=asked)
    assert looks == [3, 6, 9, 12]
    assert asked.steps == steps
