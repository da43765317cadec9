"""Schedule of preemption checks, by the speed of training. tests/integration/train/test_resume.py preempts runs.

Run: python -m pytest tests/unit/base/test_preemption_interface.py
"""

from jepa_train.base.preemption import NoPreemption, Watch


def test_the_pace_sets_the_number_of_steps_between_two_checks() -> None:
    watch = Watch(NoPreemption())
    assert watch.due(1), "the speed is not known yet"
    for rate, steps in ((2.0, 10), (0.5, 2), (0.01, 1), (1e300, 10**9)):
        watch.pace(rate)
        assert watch.leaving(100) is False
        assert [watch.due(100 + after) for after in (steps - 1, steps)] == [False, True], f"{rate} steps/s"
