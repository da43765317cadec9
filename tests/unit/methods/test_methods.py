"""What holds for every method: the rows of METHODS."""

import pytest
import ranks
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from jepa_train.config import ModelConfig
from jepa_train.evaluation.probes import Labelled, knn_top1
from jepa_train.methods import METHODS, Method
from jepa_train.model.heads import build_projector


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_several_ranks_take_the_step_of_one_process(name: str, world: int) -> None:
    alone = ranks.training_step(name)
    for rank in ranks.results(world):
        torch.testing.assert_close(rank["steps"][name], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_loss_is_in_fp32_under_autocast_and_its_terms_are_detached(name: str) -> None:
    method, x = METHODS[name](), ranks.draw("autocast", 40, 6).float()
    model = nn.Linear(6, 5)
    ranks.fill(model, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = model(x).unflatten(0, (2, 20))
        loss, terms = method(z, num_global=2, step=0, seed=0)
    assert z.dtype == torch.bfloat16
    exact, _ = method(z.double(), num_global=2, step=0, seed=0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert loss.requires_grad
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_gradients_match_finite_differences(name: str) -> None:
    z = ranks.draw("gradients", 2, 7, 3).requires_grad_()
    method = METHODS[name]()
    assert torch.autograd.gradcheck(lambda z: method(z, num_global=2, step=0, seed=0)[0], (z,))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_embedding_that_is_not_finite_has_such_a_loss(name: str) -> None:
    z = ranks.draw("not finite", 2, 10, 5).float()
    z[1, 3] = float("nan")
    loss, _ = METHODS[name]()(z, num_global=2, step=0, seed=0)
    assert not loss.isfinite()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_twenty_steps_on_digits_teach_it_something(name: str) -> None:
    """A projector of 64 pixels under noise: the loss on other images falls, and so does the neighbours' error."""
    method = METHODS[name]()
    bunch = load_digits()
    x, labels = torch.tensor(bunch.data, dtype=torch.float32) / 16, torch.tensor(bunch.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_projector(
            64, ModelConfig(projector_hidden=128, projector_dim=16), output_activation=method.output_activation
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        held_out = views(x[1280:])
        before = objective(method, model, held_out, step=0)[0].item()
        for step in range(20):
            loss, _ = objective(method, model, views(x[step * 64 :][:64]), step=step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert objective(method, model, held_out, step=0)[0].item() < 0.9 * before
    z = model(x).detach()
    found = knn_top1(Labelled(z[:1280], labels[:1280]), Labelled(z[1280:], labels[1280:]), num_classes=10, ks=(5,))
    assert found[5] > 0.7


def views(x: Tensor) -> Tensor:
    return x + 0.2 * torch.randn(2, *x.shape)


def objective(method: Method, model: nn.Module, pair: Tensor, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    return method(model(pair.flatten(0, 1)).unflatten(0, (2, -1)), num_global=2, step=step, seed=0)
