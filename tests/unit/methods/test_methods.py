"""Properties of every method in METHODS: precision, gradients, randomness, accepted views and values.

Rank equality is in tests/integration/distributed/test_distributed.py.
Run: python -m pytest tests/unit/methods/test_methods.py
"""

import re
import sys
from pathlib import Path

import pytest
import ranks
import torch
from torch import nn

from jepa_train import methods
from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten, parse, unflatten
from jepa_train.methods import METHODS
from jepa_train.methods.base import Step, check_views


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_loss_is_in_fp32_under_autocast_and_its_terms_are_detached(name: str) -> None:
    method, x = METHODS[name](), ranks.draw("autocast", 40, 6).float()
    model = nn.Linear(6, 5)
    ranks.fill(model, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = model(x).unflatten(0, (2, 20))
        loss, terms = method(z, Step(2, 0, 0))
    assert z.dtype == torch.bfloat16
    exact, _ = method(z.double(), Step(2, 0, 0))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert loss.requires_grad
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize("name", sorted({*METHODS} - {"visreg"}))  # no gradient flows through its std
def test_gradients_match_finite_differences(name: str) -> None:
    z = ranks.draw("gradients", 2, 7, 3).requires_grad_()
    method = METHODS[name]()
    assert torch.autograd.gradcheck(lambda z: method(z, Step(2, 0, 0))[0], (z,))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_draws_depend_on_step_and_seed_alone(name: str) -> None:
    """Methods that draw slices or targets draw others at each step and seed; the other losses stay the same."""
    z, method = ranks.draw("z", 2, 10, 5), METHODS[name]()
    places = [(step, seed) for step in (0, 1) for seed in (0, 1)] * 2
    losses = [method(z, Step(2, step, seed))[0].item() for step, seed in places]
    assert losses[:4] == losses[4:]
    assert len(set(losses)) == (4 if hasattr(method, "num_slices") else 1)


@pytest.mark.parametrize(
    ("name", "views", "message"),
    [
        ("lejepa", (1, 0), "views.num_global + views.num_local must be at least 2 for lejepa, got 1 + 0; "),
        *(
            (name, views, f"views.{field} must be {number} for {name}, got {got}; ")
            for name in sorted(name for name, method in METHODS.items() if method.only_pairs)
            for views, field, number, got in (((4, 0), "num_global", 2, 4), ((2, 6), "num_local", 0, 6))
        ),
    ],
)
def test_unsupported_views_are_refused(name: str, views: tuple[int, int], message: str) -> None:
    check_views(METHODS[name](), 2, 0)
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        check_views(METHODS[name](), *views)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("lejepa", "lamb", 1.5, "lamb is a convex weight in [0, 1], got 1.5; "),
        ("lejepa", "num_knots", 1, "num_knots must be at least 2, got 1; "),
        ("lejepa", "domain", "full", "domain must be one of symmetric, half, got 'full'"),
        ("rectified_lpjepa", "p", 0.001, "p must be at least 0.01, got 0.001; "),
        ("simclr", "temperature", 0.0, "temperature must be positive, got 0.0; the papers use 0.2"),
        ("ncl", "nonneg", "none", "nonneg must be one of relu, rep_relu, got 'none'"),
        ("vicreg", "lamb_cov", -1.0, "lamb_cov must not be negative, got -1.0; the paper uses 1"),
        ("visreg", "lamb", -0.1, "lamb is a convex weight in [0, 1], got -0.1; the paper starts at 0.6"),
        ("barlow_twins", "lamb_off", -1.0, "lamb_off must not be negative, got -1.0; the paper uses 0.005"),
        ("kerjepa", "gamma", 0.0, "gamma must be positive, got 0.0; LeJEPA's window is 0.5"),
    ],
)
def test_wrong_values_are_refused_by_name(name: str, field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        METHODS[name](**{field: value})


def test_a_class_of_the_users_own_is_a_method_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = 'class Ours(VICReg):\n    name = "own_loss.Ours"\nclass Nameless(VICReg): ...\n'
    text = f"from jepa_train.methods import VICReg\nfrom dataclasses import dataclass\n{classes}"
    (tmp_path / "own_loss.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(methods, "METHODS", METHODS | {})
    config = unflatten({"method": "own_loss.Ours", "method.lamb_cov": 2.0})
    assert flatten(config)["method"] == "own_loss.Ours"
    assert type(config.method).__name__ == "Ours"
    for name, message in (
        (
            "own_loss.Nameless",
            "method.name must be the path by which workers import Nameless, got 'vicreg'; write name = ",
        ),
        ("own_loss.VICReg", "method must be a known method, got 'own_loss.VICReg'; Python finds no such class"),
        ("own_loss.dataclass", "method must be a dataclass with the interface of jepa_train/methods/base.py, got "),
        ("own_loss.Nope", "method must be a known method, got 'own_loss.Nope'; Python finds no such class"),
        ("own_losses.Ours", "method must be a known method, got 'own_losses.Ours'; Python finds no such class"),
    ):
        for read in (unflatten, lambda given: parse([f"method={given['method']}"], base=TrainConfig())):
            with pytest.raises(ConfigError, match="^" + re.escape(message)):
                read({"method": name})
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "own_loss.py"), raising=False)
    with pytest.raises(ConfigError, match=r"^method must be in a file of its own, got Nameless in the sweep's file; "):
        unflatten({"method": "own_loss.Nameless"})


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_embedding_that_is_not_finite_gives_a_loss_that_is_not_finite(name: str) -> None:
    z = ranks.draw("not finite", 2, 10, 5).float()
    z[1, 3] = float("nan")
    loss, _ = METHODS[name]()(z, Step(2, 0, 0))
    assert not loss.isfinite()
