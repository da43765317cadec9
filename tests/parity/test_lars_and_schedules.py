"""LARS and the learning rate's schedule against closed forms and public code.

Run: python -m pytest tests/parity/test_lars_and_schedules.py
"""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from meta_device import DeviceForm
from timm.optim import Lars
from waves import wave

from jepa_train.config import OptimConfig
from jepa_train.model.optim import lars, lr_at

# Weights and biases after the 30 steps below, by YilunKuang/rectified-lp-jepa 5ae61ab (and, equal, vturrisi/solo-learn
# 9187ea3), solo/utils/lars.py:27, with eta=.02, clip_lr and exclude_bias_n_norm, the options of its YAML files ...
WEIGHTS = {
    0.01: (0.072861252, 0.132830236, 0.302449412, 0.518684398, 0.601951394, 0.303306291),
    0.0: (0.101084309, 0.191563135, 0.448003726, 0.776725032, 0.908016219, 0.464438389),
}
BIASES = (2.235207718, 2.172780279, 1.858810946)
# ... and by lightly-ai/lightly e8d317f, lightly/utils/lars.py:7, which like the authors' MINIMAL.md does not clip
UNCLIPPED = np.array([0.030797368, 0.090543408, 0.262016666, 0.489138903, 0.598843369, 0.334409259])


@pytest.mark.parametrize("decay", WEIGHTS)
def test_lars_takes_30_steps_of_the_formula_and_of_public_code(decay: float) -> None:
    """With gradients of three sizes: the rate of a layer is clipped for the smallest alone. Weights without decay, as
    of probes, are adapted too."""
    start, decays = (wave(3, 2), wave(3, shift=1.0)), (decay, 0.0)
    parameters = [torch.nn.Parameter(w.clone()) for w in start]
    groups = [{"params": [p], "lr": 0.4, "weight_decay": each} for p, each in zip(parameters, decays, strict=True)]
    optimizer = lars(groups, OptimConfig(name="lars", momentum=0.9, lars_eta=0.02))
    weights, velocities, clipped = [w.numpy().copy() for w in start], [np.zeros(w.shape) for w in start], []
    for step in range(30):
        lr, size = 0.4 * (1 - step / 60), (1e-3, 1.0, 0.05)[step % 3]
        gradients = [size * wave(*w.shape, shift=10 + step + half / 2) for half, w in enumerate(weights)]
        for group, parameter, gradient in zip(optimizer.param_groups, parameters, gradients, strict=True):
            group["lr"], parameter.grad = lr, gradient.clone()
        optimizer.step()
        for w, gradient, v, each in zip(weights, gradients, velocities, decays, strict=True):
            d = gradient.numpy()
            if w.ndim == 2:
                w_norm, d_norm = np.sqrt((w**2).sum()), np.sqrt((d**2).sum())
                ratio = 0.02 * w_norm / (d_norm + each * w_norm + 1e-8) / lr
                clipped.append(ratio > 1)
                d = (d + each * w) * min(ratio, 1.0)
            v[...] = 0.9 * v + d
            w -= lr * v
    assert {True, False} == set(clipped)
    for parameter, w, recorded in zip(parameters, weights, (WEIGHTS[decay], BIASES), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-10)
        np.testing.assert_allclose(w.ravel(), recorded, atol=2e-9)
    assert np.abs(WEIGHTS[0.01] - UNCLIPPED).max() > 0.03  # a deviation, not a rounding


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_lars_is_timms_on_a_cpu_bit_for_bit(layout: torch.memory_format, gpu: bool) -> None:
    """With gradients that are clipped, not clipped or zero, and another learning rate in each step."""

    def parameters() -> list[torch.nn.Parameter]:
        weights = [wave(8, 3, 3, 3), wave(70, 40), wave(16, 8, 1, 1), torch.zeros(3, 2), wave(8), wave(1)]
        weights = [w.float().to(memory_format=layout) if w.ndim == 4 else w.float() for w in weights]
        return [torch.nn.Parameter(w.clone()) for w in weights]

    found, expected = parameters(), parameters()
    ours, timms = (
        [{"params": p[:4], "lr": 0.4, "weight_decay": 0.01}, {"params": p[4:], "lr": 0.4, "weight_decay": 0.0}]
        for p in (found, expected)
    )
    optimizer = lars(ours, OptimConfig(name="lars", momentum=0.9, lars_eta=0.02))
    peer = Lars([timms[0] | {"always_adapt": True}, timms[1]], momentum=0.9, trust_coeff=0.02, trust_clip=True)
    for step in range(20):
        for place, (parameter, other) in enumerate(zip(found, expected, strict=True)):
            size = (1e-3, 1.0, 0.05, 0.0)[(step + place) % 4]
            gradient = size * wave(*parameter.shape, shift=step + place / 7).float()
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
            other.grad = parameter.grad.clone()
        for group, other in zip(optimizer.param_groups, peer.param_groups, strict=True):
            other["lr"] = 0.4 * (1 - step / 60)
            group["lr"] = torch.tensor(other["lr"], dtype=torch.float64)
        with DeviceForm() if gpu else nullcontext():
            optimizer.step()
        peer.step()
        for parameter, other in zip(found, expected, strict=True):
            torch.testing.assert_close(parameter, other, rtol=1e-6 * gpu, atol=1e-7 * gpu)


@pytest.mark.parametrize(
    ("step", "total", "warmup", "factor"),
    [
        (0, 100, 10, 1 / 10),  # the first step moves
        (4, 100, 10, 5 / 10),
        (9, 100, 10, 1.0),  # the last warm-up step is at the peak
        (54, 100, 10, 0.02 + 0.98 / 2),  # half-way between steps 9 and 99
        (39, 100, 10, 0.02 + 0.98 * math.cos(math.pi / 6) ** 2),  # a third: (1 + cos(pi / 3)) / 2 = cos^2(pi / 6)
        (99, 100, 10, 0.02),
        (1, 3, 0, 0.02 + 0.98 / 2),
        (3, 4, 8, 4 / 8),  # a warm-up longer than the run is cut off
    ],
)
def test_schedule_follows_the_closed_form(step: int, total: int, warmup: int, factor: float) -> None:
    assert lr_at(step, total_steps=total, warmup_steps=warmup, final_lr_frac=0.02) == pytest.approx(factor)


STEPS = (0, 1, 10, 19, 20, 50, 110, 199)  # of 200, 20 of them warm-up; learning rates as fractions of the peak


@pytest.mark.parametrize(
    ("floor", "rates"),
    [
        pytest.param(
            *(0.0, (0.001, 0.053579, 0.526789, 1.0, 1.0, 0.933013, 0.5, 0.000076)),
            id="vturrisi/solo-learn 9187ea3, solo/utils/lr_scheduler.py:14, warmup_start_lr=.001",
        ),
        pytest.param(
            *(0.0, (0.0, 0.05, 0.5, 0.95, 1.0, 0.933013, 0.5, 0.000076)),
            id="YilunKuang/rectified-lp-jepa 5ae61ab, MINIMAL.md, LR Schedule",
        ),
        pytest.param(
            *(0.5, (0.01, 0.0595, 0.505, 0.9505, 1.0, 0.966506, 0.75, 0.500038)),
            id="rbalestr-lab/lejepa eddffdd, MINIMAL.md, LinearLR and CosineAnnealingLR",
        ),
        pytest.param(
            *(0.0, (0.05, 0.1, 0.55, 1.0, 1.0, 0.93228, 0.495612, 0.0)),
            id="lightly-ai/lightly e8d317f, lightly/utils/scheduler.py:72",
        ),
    ],
)
def test_schedules_of_public_code_are_at_most_one_step_away(floor: float, rates: tuple[float, ...]) -> None:
    for step, rate in zip(STEPS, rates, strict=True):
        ours = lr_at(step, total_steps=200, warmup_steps=20, final_lr_frac=floor)
        one_step = 1 / 20 if step < 20 else (1 - floor) * math.pi / 2 / 180
        assert abs(ours - rate) <= one_step + 1e-6, step
