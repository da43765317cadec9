"""Batch norm's kernels, in Triton's interpreter, against the form for a CPU.

Run: python -m pytest tests/unit/model/test_batch_norm.py
"""

import copy

import pytest
import timm
import torch
from meta_device import META, traces
from torch import Tensor, nn

from jepa_train.base import kernel_launch
from jepa_train.base.seeds import generator
from jepa_train.model import batch_norm, batch_norm_triton
from jepa_train.model.batch_norm import GlobalBatchNorm, convert_batch_norm
from jepa_train.model.batch_norm_triton import gradient_sums, input_gradient, normalize, view_statistics


def draw(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers far from zero mean; images of more than two channels have channels last."""
    x = 5 + 2 * torch.randn(shape, generator=generator(name))
    last = x.ndim == 4 and shape[1] > 2
    return x.to(dtype, memory_format=torch.channels_last if last else torch.contiguous_format)


def layer(channels: int, views: int, *, relu: bool) -> GlobalBatchNorm:
    """A layer with statistics of each view, whose weights, biases and buffers are its own."""
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        for index, tensor in enumerate((norm.weight, norm.bias, norm.running_mean, norm.running_var)):
            tensor.copy_(0.5 + 0.2 * torch.randn(channels, generator=generator("norm", index)))
    made = GlobalBatchNorm(norm, per_view=True)
    made.num_views = views
    if relu:
        made.act = nn.ReLU()
    return made


def outcome(norm: GlobalBatchNorm, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients and buffers of one step."""
    x = x.clone().requires_grad_()
    out = norm(x)
    out.backward(draw("grad", *x.shape, dtype=x.dtype) - 5)
    assert x.grad is not None
    assert x.shape[1] == 2 or out.stride() == x.grad.stride() == x.stride()
    gradients = {name: parameter.grad for name, parameter in norm.named_parameters()}
    return {"out": out.detach(), "x": x.grad, **gradients, **{f"buffer {k}": v for k, v in norm.named_buffers()}}


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows divide into splits, and a split into tiles, as in large inputs."""
    monkeypatch.setattr(batch_norm_triton, "_TILE", 64)
    monkeypatch.setattr(batch_norm_triton, "_PROGRAMS", 4)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("shape", "views", "relu", "dtype"),
    [
        ((6, 5, 2, 2), 3, True, torch.float32),
        ((3, 5, 5, 5), 1, True, torch.float32),
        ((8, 70), 2, False, torch.float32),
        ((4, 2, 2, 2), 2, True, torch.float32),
        ((9, 5), 3, True, torch.bfloat16),
        ((4, 3, 3, 3), 2, True, torch.float16),
    ],
)
def test_kernels_do_what_the_other_form_does(
    shape: tuple[int, ...], views: int, relu: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = draw("x", *shape, dtype=dtype)
    norm = layer(shape[1], views, relu=relu)
    if views == 1:  # of several ranks; the others hold the same rows
        monkeypatch.setattr(batch_norm, "world_size", lambda: 2)
        monkeypatch.setattr(batch_norm, "_of_all_ranks", lambda part: torch.stack([part, part]))
    expected = outcome(copy.deepcopy(norm), x)
    monkeypatch.setattr(batch_norm, "_has_kernels", batch_norm_triton.has_form)
    found = outcome(norm, x)
    for name, value in expected.items():
        rounding = torch.finfo(dtype).eps if name in ("out", "x") else 0.0
        tolerance = max(rounding, 1e-5)
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.usefixtures("small_tiles")
def test_ranks_exchange_statistics_and_sums() -> None:
    """Two ranks, one after the other; what they exchange is stacked here."""
    views, relu, shape = 2, True, (6, 5, 2, 2)
    x, grad = draw("x", views * 6, *shape[1:]), draw("grad", views * 6, *shape[1:]) - 5
    norm = layer(shape[1], views, relu=relu)
    expected = outcome(copy.deepcopy(norm), x)

    def shares(whole: Tensor) -> list[Tensor]:
        parts = whole.unflatten(0, (views, -1)).chunk(2, dim=1)
        return [part.flatten(0, 1).contiguous(memory_format=torch.channels_last) for part in parts]

    def joined(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.unflatten(0, (views, -1)) for part in parts], dim=1).flatten(0, 1)

    affine = norm.weight.detach(), norm.bias.detach()
    xs, grads = shares(x), shares(grad)
    found = torch.stack([view_statistics(part, views) for part in xs])
    buffers = [copy.deepcopy(norm) for _ in xs]
    outs, scales = zip(
        *(normalize(part, found, *affine, own, eps=norm.eps, relu=relu) for part, own in zip(xs, buffers, strict=True)),
        strict=True,
    )
    triples = list(zip(grads, xs, scales, strict=True))
    sums, totals = zip(*(gradient_sums(*triple, *affine, relu=relu) for triple in triples), strict=True)
    slopes = [input_gradient(*triple, torch.stack(sums), *affine, relu=relu) for triple in triples]
    results = {"out": joined(list(outs)), "x": joined(slopes), "bias": sum(totals)[0], "weight": sum(totals)[1]}
    for own in buffers:
        results |= {f"buffer {name}": value for name, value in own.named_buffers()}
        torch.testing.assert_close({name: results[name] for name in expected}, expected, rtol=1e-5, atol=1e-5)


def test_a_mean_far_from_zero_costs_no_accuracy() -> None:
    x = 1e3 + torch.randn(200, 4, generator=generator("x"))
    mean, variance = view_statistics(x, 1)[0].double()
    torch.testing.assert_close(mean, x.double().mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance, x.double().var(0, correction=0), rtol=1e-5, atol=0)


def test_relu_keeps_nan() -> None:
    x = draw("x", 4, 2)
    x[0, 0] = torch.nan
    norm = layer(2, 1, relu=True)
    found = view_statistics(x, 1)[None]
    out, _ = normalize(x, found, norm.weight.detach(), norm.bias.detach(), norm, eps=1e-5, relu=True)
    assert out[:, 0].isnan().all()
    assert out[:, 1].isfinite().all()


@pytest.mark.parametrize("views", [1, 8])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_layer_takes_three_launches_forward_and_three_backward(
    views: int, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_norm, "world_size", lambda: ranks)
    monkeypatch.setattr(batch_norm, "all_gather", lambda x: x.new_empty(ranks, *x.shape[1:]))
    launches: list[str] = []
    monkeypatch.setattr(kernel_launch, "observers", [lambda name, *_: launches.append(name)])
    norm = layer(64, views, relu=True).to(META)
    x = torch.empty(16, 64, 8, 8, dtype=torch.bfloat16, device=META).to(memory_format=torch.channels_last)
    x.requires_grad_()

    def step() -> None:
        launches.clear()
        out = norm(x)
        torch.autograd.grad(out, [x, norm.weight, norm.bias], out.detach())

    first, second = traces(step)
    assert first.ops == second.ops
    if ranks == views == 1:
        assert launches == []  # nn.BatchNorm
    else:
        assert (len(launches), first.launches) == (6, [])


def moved_relus(network: nn.Module) -> int:
    norms = [module for module in network.modules() if isinstance(module, GlobalBatchNorm)]
    return sum(isinstance(norm.act, nn.ReLU) for norm in norms)


@pytest.mark.parametrize(("encoder", "moved"), [("resnet18", 1 + 8), ("resnet50", 1 + 2 * 16)])
def test_relus_of_a_resnet_become_part_of_batch_norm_except_after_an_addition(encoder: str, moved: int) -> None:
    with META:
        network = convert_batch_norm(timm.create_model(encoder, num_classes=0))
    assert moved_relus(network) == moved


def test_moving_relus_changes_no_number() -> None:
    """A shared ReLU stays where it does not follow a batch norm."""
    relu = nn.ReLU(inplace=True)
    encoder = timm.create_model("test_resnet", num_classes=0)
    network = nn.Sequential(encoder, relu, nn.Linear(96, 4), nn.BatchNorm1d(4), relu, nn.Linear(4, 4), relu)
    names = list(network.state_dict())
    x = torch.randn(4, 3, 16, 16, generator=generator("x"))
    expected = copy.deepcopy(network)(x)
    converted = convert_batch_norm(network)
    assert moved_relus(converted[3:]) == 1
    assert torch.equal(converted(x), expected)
    assert list(converted.state_dict()) == names
