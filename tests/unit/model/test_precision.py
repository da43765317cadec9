"""fp16's gradient scaler against torch.amp.GradScaler: scale, skipped steps, optimisers, no reads on the host.

Run: python -m pytest tests/unit/model/test_precision.py
"""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from meta_device import META, fused_optimizers, traces
from timm.optim import Lars
from torch import Tensor, nn

from jepa_train.config import OptimConfig
from jepa_train.model.optim import Optimizer, adamw, lars
from jepa_train.model.precision import GradientScaler, autocast

CPU = torch.device("cpu")
OVERFLOW = 1e36  # times the scale 65536: beyond fp32
# (factor of the encoder's loss, of the probes') of each step; the first one overflows, before there is a momentum
STEPS = [(OVERFLOW, 0.1), (OVERFLOW, OVERFLOW), (0.1, 0.1), (0.01, OVERFLOW), (0.3, 0.1), (0.001, 0.2)]


def parameters() -> list[nn.Parameter]:
    """Weight and bias of an encoder, then of a probe."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (4,), (2, 4), (2,))]


def groups(weight: nn.Parameter, bias: nn.Parameter) -> list[dict[str, Any]]:
    return [{"params": [weight], "lr": 0.1, "weight_decay": 0.01}, {"params": [bias], "lr": 0.1, "weight_decay": 0.0}]


def losses(own: list[nn.Parameter]) -> list[Tensor]:
    return [
        sum(factor * parameter.square().sum() for factor, parameter in zip((a, a, b, b), own, strict=True))
        for a, b in STEPS
    ]


LARS = functools.partial(lars, config=OptimConfig(name="lars"))
KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": adamw, "lars": LARS}


def timms_lars(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser that GradScaler does not call where it skips a step."""
    adapted = [group | {"always_adapt": index == 0} for index, group in enumerate(groups)]
    return Lars(adapted, momentum=0.9, trust_coeff=0.02, trust_clip=True)


PEERS = {"adamw": adamw, "lars": timms_lars}


def optimizer_of(own: list[nn.Parameter], kind: str, precision: str = "fp16") -> Optimizer:
    parts = [KINDS[kind](groups(*own[:2])), KINDS[kind](groups(*own[2:]))]
    schedules = [lambda step: 1 / (1 + step // len(STEPS))] * 2
    return Optimizer(parts, schedules=schedules, scaler=GradientScaler(precision, own[0].device))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_torchs_scaler_and_each_optimiser_skips_its_own(kind: str) -> None:
    expected, found = parameters(), parameters()
    peers = [PEERS[kind](groups(*expected[:2])), PEERS[kind](groups(*expected[2:]))]
    scaler = torch.amp.GradScaler("cpu")
    optimizer = optimizer_of(found, kind)
    skipped = 0
    for step in range(len(STEPS)):
        before = scaler.get_scale()
        scaler.scale(losses(expected)[step]).backward()
        for peer in peers:
            scaler.step(peer)
            peer.zero_grad()
        scaler.update()
        skipped += scaler.get_scale() < before
        optimizer.begin_step()
        optimizer.step(losses(found)[step])
        for parameter, other in zip(found, expected, strict=True):
            torch.testing.assert_close(parameter, other, rtol=1e-6, atol=0)
        state = optimizer.state_dict()["scaler"]
        assert (state["scaler"], int(state["skipped"])) == (scaler.state_dict(), skipped)
    assert skipped == optimizer.scaler.skipped == 3
    assert optimizer.steps_taken == len(STEPS)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_has_the_same_operations_and_reads_nothing_on_the_host(kind: str, precision: str) -> None:
    own = [nn.Parameter(parameter.to(META)) for parameter in parameters()]
    optimizer = optimizer_of(own, kind, precision)

    def step() -> None:
        optimizer.begin_step()
        optimizer.step(losses(own)[2])

    with fused_optimizers():
        first, second = traces(step)
    assert first.ops == second.ops
    assert ("_fused_adamw_" if kind == "adamw" else "_foreach_norm") in first.launches
    assert ("_amp_update_scale_" in first.launches) == (precision == "fp16")


def test_autocast_and_scaler_follow_the_precision() -> None:
    linear, x = nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with autocast(CPU, precision):
            assert linear(x).dtype == dtype
        assert bool(GradientScaler(precision, CPU).state_dict()) == (precision == "fp16")


def test_the_scale_on_several_ranks_is_a_share_of_one_processs_and_their_states_are_one() -> None:
    """The gradients by activations are W times as large on W ranks, and must not overflow earlier."""
    weight = nn.Parameter(torch.ones(1))
    alone, shared = (GradientScaler("fp16", CPU, ranks=ranks) for ranks in (1, 4))
    for scaler, scale in ((alone, 2**16), (shared, 2**14)):
        weight.grad = None
        scaler.backward(3 * weight.sum())
        assert weight.grad == 3 * scale
    assert alone.state_dict() == shared.state_dict()
    other = GradientScaler("fp16", CPU, ranks=2)
    other.load_state_dict(alone.state_dict() | {"scaler": alone.state_dict()["scaler"] | {"scale": 8.0}})
    weight.grad = None
    other.backward(weight.sum())
    assert weight.grad == 4
