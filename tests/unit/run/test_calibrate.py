"""What a run will take is what it takes, by a clock that only steps and evaluations move."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jepa_train.base.errors import ConfigError
from jepa_train.config.presets import DIGITS
from jepa_train.evaluation import finetune
from jepa_train.methods import LeJEPA
from jepa_train.train import loop as train_module
from jepa_train.train.loop import train
from jepa_train.train.trainer import Trainer
from sweeps.engine.run import calibrate
from sweeps.engine.run.calibrate import Bench

CONFIG = dataclasses.replace(
    DIGITS,
    method=LeJEPA(num_slices=16),
    epochs=3,
    global_batch=256,
    probe=dataclasses.replace(DIGITS.probe, protocols=""),
)
BUILD_S, IMAGE_S, VAL_S, FINAL_S = 2.0, 0.01, 0.001, 3.0  # of a trainer, an image of a step, one of val, the end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that pass because work is done, whoever asks for it."""
    clock = SimpleNamespace(now=0.0)

    def takes(owner: Any, name: str, seconds: Callable[..., float]) -> None:
        real = getattr(owner, name)

        def work(*args: Any, **options: Any) -> Any:
            clock.now += seconds(*args)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, work)

    takes(Trainer, "__init__", lambda *_: BUILD_S)
    takes(Trainer, "train_step", lambda trainer: trainer.config.global_batch * IMAGE_S)
    for module in (calibrate, train_module):
        takes(module, "evaluate", lambda _, images, __: len(images) * VAL_S)
        takes(module, "final_evaluation", lambda *_: FINAL_S)
    monkeypatch.setattr(calibrate, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_estimate_is_what_a_real_run_takes(clock: SimpleNamespace, epochs: int) -> None:
    speed = Bench(CONFIG).measure()
    before = clock.now
    train(dataclasses.replace(CONFIG, epochs=epochs))
    assert speed.once_s + epochs * speed.epoch_s == pytest.approx(clock.now - before, rel=1e-6)
    assert speed.images_per_s == pytest.approx(1 / IMAGE_S)


@pytest.mark.usefixtures("clock")
def test_two_workers_halve_the_steps_and_the_evaluation_of_val() -> None:
    one, two = (Bench(CONFIG).measure(workers=workers) for workers in (1, 2))
    assert two.images_per_s == pytest.approx(2 * one.images_per_s)
    assert two.epoch_s == pytest.approx(one.epoch_s / 2)
    assert two.once_s == pytest.approx(one.once_s)


@pytest.mark.usefixtures("clock")
def test_a_final_evaluation_that_would_take_long_counts_by_its_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    images = 1797  # of digits, in all three splits
    monkeypatch.setattr(calibrate, "FINAL_S", images * VAL_S - 0.01)
    assert Bench(CONFIG).measure().once_s == pytest.approx(BUILD_S + images * VAL_S)


@pytest.mark.usefixtures("clock")
def test_fine_tuning_is_priced_by_its_views_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "_fit", lambda *_: pytest.fail("it was run"))
    asked = dataclasses.replace(CONFIG, probe=dataclasses.replace(CONFIG.probe, protocols="finetune"))
    # 10, 20, 50, 100 and 128 images for at least 100 steps at three rates; two views make an image of a step
    views = 3 * 100 * (10 + 20 + 50 + 100 + 128 + 128)
    expected = Bench(CONFIG).measure().once_s + views * IMAGE_S / 2
    assert Bench(asked).measure().once_s == pytest.approx(expected)


def test_an_untrained_reference_is_measured_like_a_cell() -> None:
    speed = Bench(dataclasses.replace(CONFIG, epochs=0)).measure(threads=torch.get_num_threads())
    assert speed.images_per_s > 0
    assert 0.1 < speed.peak_gb < 20, "an interpreter with torch, and no more than a small machine has"


def test_what_could_not_train_is_refused_in_the_words_of_training() -> None:
    with pytest.raises(ConfigError, match="global_batch must not exceed the 1222 training images"):
        Bench(dataclasses.replace(CONFIG, global_batch=4096)).measure()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_memory_is_what_the_allocator_took_of_the_whole() -> None:
    speed = Bench(CONFIG).measure()
    assert 0 < torch.cuda.max_memory_allocated() / 1e9 <= speed.peak_gb < speed.device_gb
    assert speed.device_gb == pytest.approx(torch.cuda.get_device_properties(0).total_memory / 1e9, rel=0.05)
