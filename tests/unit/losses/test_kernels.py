"""Losses by Triton kernels against their forms in PyTorch, their launches, and traces of two steps.

The kernels run on a GPU if there is one, else in Triton's interpreter, at 0.2 s per program. The launches and traces
are those of the meta device. Long rows are in tests/slow/test_gpu_kernels.py.
Run: python -m pytest tests/unit/losses/test_kernels.py
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ranks import draw
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jepa_train.base import kernel_launch
from jepa_train.losses import sliced_wasserstein as wasserstein
from jepa_train.losses.ecf import Knots
from jepa_train.losses.matmul import tf32_products
from jepa_train.losses.sliced_wasserstein import sliced_wasserstein
from jepa_train.methods import METHODS, LeJEPA, Method, RectifiedLpJEPA, VISReg, lejepa
from jepa_train.methods.base import Step
from jepa_train.methods.lejepa import sigreg
from jepa_train.methods.rectified_lpjepa import rdmreg

pytest.importorskip("triton")
from jepa_train.losses.ecf_triton import derivative, statistics, wave_sums
from jepa_train.losses.rank_matching_triton import subtract_by_rank

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FREE = {
    "empty",
    "empty_like",
    "new_empty",
    "detach",
    "_unsafe_view",
    "empty_strided",
    "new_empty_strided",
    "promote_types",
}


@pytest.fixture
def by_kernels(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call to use the kernels from then on, on a CPU too."""

    def use() -> None:
        for module in (lejepa, wasserstein):
            monkeypatch.setattr(module, "runs_kernels", lambda _: True)

    return use


def value_and_gradient(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    leaf = z.detach().requires_grad_()
    value = loss(leaf)
    return value.detach(), torch.autograd.grad((3 * value).sum(), leaf)[0]


def unit_columns(dim: int, num: int) -> Tensor:
    return functional.normalize(draw("slices", num, dim).float(), dim=1).mT


# --- rank matching


@pytest.mark.parametrize("num", [1, 16, 23, 64])
@pytest.mark.parametrize("shared", [False, True])
def test_differences_by_rank_are_those_of_a_stable_sort_bit_for_bit(num: int, shared: bool) -> None:
    x, y = draw("x", 2, 2, num).float(), draw("y", 2, 1 if shared else 2, num).float().relu()
    x[0, 0, : num // 2] = x[0, 0, 0]  # ties
    x[0, 1] = x[0, 1].relu()
    x[1, 0, ::2] *= 0
    x[1, 0, ::4] *= -1  # -0.0
    x[1, 1, num // 3 :] = torch.tensor([np.inf, -np.inf, np.nan, -np.nan]).repeat(num)[: num - num // 3]
    ordered, places = x.sort(dim=-1, stable=True)
    expected = torch.empty_like(x).scatter_(-1, places, ordered - y.sort(dim=-1).values)
    found, squares = x.to(DEVICE), torch.empty(2, 2, device=DEVICE)
    subtract_by_rank(found, y.to(DEVICE), squares, scale=0.5)
    np.testing.assert_array_equal(found.cpu(), expected)  # NaN equals NaN, -0.0 equals 0.0
    torch.testing.assert_close(squares.cpu(), expected.square().sum(-1) / 2, equal_nan=True)


@pytest.mark.parametrize(
    ("shape", "num_slices", "block"),
    [((2, 20, 6), 5, 2**26), ((20, 6), 5, 100), ((20,), 3, 100), ((2, 20, 6), 0, 100)],
)
def test_sliced_wasserstein_by_kernels(
    shape: tuple[int, ...], num_slices: int, block: int, by_kernels: Any, monkeypatch: Any
) -> None:
    z, slices = draw("z", 2, 20, 6).float().relu(), unit_columns(6, num_slices)
    target = draw("target", *shape).float()
    expected = value_and_gradient(lambda z: sliced_wasserstein(z, target, slices), z)
    by_kernels()
    monkeypatch.setitem(wasserstein._BLOCK, "cpu", block)  # 2 slices at a time
    found = value_and_gradient(lambda z: sliced_wasserstein(z, target.to(DEVICE), slices.to(DEVICE)), z.to(DEVICE))
    torch.testing.assert_close([part.cpu() for part in found], [*expected], rtol=1e-5, atol=1e-7)


# --- SIGReg


@pytest.mark.parametrize("knots", [Knots(first=0.625, stride=1, num=8), Knots(first=0.3, stride=2, num=21)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (300, 33), (2, 2, 5, 8)], ids=str)
def test_statistic_and_derivative_are_the_exponentials_written_out(shape: tuple[int, ...], knots: Knots) -> None:
    x = (3 * draw("x", *shape)).float()
    t = (knots.first * (1 + knots.stride * np.arange(knots.num))).reshape(-1, *[1] * x.ndim)
    waves = np.exp(1j * t * x.double().numpy())  # (T, ..., N, K)
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    weights = 2 * knots.first * knots.stride * np.exp(-(t**2) / 2)
    weights[-1] /= 2
    error = waves.mean(-2) - np.exp(-(t**2) / 2)
    sums, values, total = (
        wave_sums(x.to(DEVICE), knots),
        x.new_empty(*shape[:-2], shape[-1]).to(DEVICE),
        x.new_empty(()),
    )
    np.testing.assert_allclose(sums.sum(0).cpu(), np.stack([waves.real, waves.imag], -1).sum(-3), atol=2e-4)
    coefficients = statistics(sums, values, knots, samples=shape[-2], scale=0.25)
    by_x = derivative(x.to(DEVICE), coefficients, knots, values=values, total=total.to(DEVICE))
    expected = shape[-2] / 4 * (weights * np.abs(error) ** 2).sum(0)
    np.testing.assert_allclose(values.cpu(), expected, rtol=1e-5, atol=1e-6)
    slope = -0.5 * np.imag((weights * t * error.conj())[..., None, :] * waves).sum(0)
    np.testing.assert_allclose(by_x.cpu(), slope, atol=1e-5 * np.abs(slope).max())
    if DEVICE == "cpu":
        assert total.item() == pytest.approx(expected.sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("num_knots", "t_max", "domain"), [(17, 5.0, "symmetric"), (40, 3.0, "symmetric"), (9, 3.0, "half")]
)
def test_sigreg_by_kernels(num_knots: int, t_max: float, domain: Any, by_kernels: Any, monkeypatch: Any) -> None:
    z, slices = draw("z", 2, 20, 6).float(), unit_columns(6, 40)
    options = {"num_knots": num_knots, "t_max": t_max, "domain": domain}
    expected = value_and_gradient(lambda z: sigreg(z, slices, **options), z)
    by_kernels()
    monkeypatch.setattr(lejepa, "_slices_at_a_time", lambda _: 32)
    slices = slices.to(DEVICE)
    found = value_and_gradient(lambda z: sigreg(z, slices, **options), z.to(DEVICE))
    torch.testing.assert_close([part.cpu() for part in found], [*expected], rtol=1e-5, atol=1e-7)
    assert sigreg(z.to(DEVICE), slices, **options).item() == pytest.approx(expected[0].item(), rel=1e-5)


def test_two_ranks_share_a_statistic_by_adding_up_its_sums(by_kernels: Any, monkeypatch: Any) -> None:
    """A rank's gradient is twice its share, which the ranks' gradients are averaged to."""
    z, slices = draw("z", 2, 20, 6).float(), unit_columns(6, 40)
    value, gradient = value_and_gradient(lambda z: sigreg(z, slices), z)
    by_kernels()
    parts, sums = z.split(10, dim=1), []
    monkeypatch.setattr(lejepa, "world_size", lambda: 2)
    monkeypatch.setattr(lejepa, "sum_over_ranks_", lambda own: sums.append(own.clone()))
    for part in parts:
        sigreg(part.to(DEVICE), slices.to(DEVICE))
    monkeypatch.setattr(lejepa, "sum_over_ranks_", lambda own: own.copy_(sums[0] + sums[1]))
    for part, share in zip(parts, gradient.split(10, dim=1), strict=True):
        found, slope = value_and_gradient(lambda z: sigreg(z, slices.to(DEVICE)), part.to(DEVICE))
        torch.testing.assert_close([found.cpu(), slope.cpu()], [value, 2 * share], rtol=1e-5, atol=1e-7)


# --- launches and traces


class Operations(TorchDispatchMode):
    """Records the operations that a GPU would run, with shapes and numbers, and the kernels' launches among them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Any, ...]] = []

    def __enter__(self) -> Any:
        kernel_launch.observers.append(self._launched)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        kernel_launch.observers.remove(self._launched)
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        if not (function.is_view or name in FREE):
            self._record(name, args, kwargs)
        return function(*args, **kwargs or {})

    def _launched(self, name: str, *arguments: Any) -> None:
        self._record(name, *arguments)

    def _record(self, name: str, *arguments: Any) -> None:
        leaves = tree_leaves(arguments)
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
        assert devices <= {"meta"}, f"{name} has tensors on {devices}"
        self.found.append((name, *(describe(leaf) for leaf in leaves)))

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.found]


def describe(leaf: Any) -> Any:
    return (leaf.shape, leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf


@pytest.fixture
def meta_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No autocast, which torch lacks for the meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


def operations(loss: Callable[[Tensor], Tensor], z: Tensor) -> Operations:
    """Forward and backward."""
    leaf = z.detach().requires_grad_()
    with Operations() as seen:
        value = loss(leaf)
        torch.autograd.grad(value, leaf, torch.empty_like(value))
    return seen


@pytest.mark.usefixtures("meta_autocast")
@pytest.mark.parametrize("views", [2, 8])
def test_launches_of_the_losses_forward_and_backward(views: int) -> None:
    z, slices = on_meta(views, 256, 128), on_meta(1024, 128).mT
    ours = operations(lambda z: sigreg(z, slices), z).names
    assert ours == ["mm", "_sums", "_statistics", "_series", "addmm_", "mul"]
    pair, targets = on_meta(2, 256, 512), on_meta(2, 256, 512)
    ours = operations(lambda z: rdmreg(z, targets, on_meta(8192, 512).mT), pair).names
    assert ours == ["mm", "mm", "_subtract_by_rank", "addmm_", "sum", "mul"]
    longer = operations(lambda z: rdmreg(z, on_meta(2, 4096, 16), on_meta(64, 16).mT), on_meta(2, 4096, 16))
    assert longer.names.count("sort") == 2


@pytest.mark.usefixtures("meta_autocast")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "method",
    [*(METHODS[name]() for name in sorted(METHODS)), RectifiedLpJEPA(p=0.5, target="gg"), RectifiedLpJEPA(p=2.0)],
    ids=repr,
)
def test_two_steps_have_the_same_operations_and_numbers_on_the_device(method: Method, dtype: torch.dtype) -> None:
    count, z = torch.zeros((), dtype=torch.int64, device="meta"), on_meta(2, 64, 32, dtype=dtype)
    steps = [operations(lambda z, n=n: method(z, Step(2, n, 5, count=count))[0], z) for n in (3, 4)]
    assert steps[0].found == steps[1].found
    draws = hasattr(method, "num_slices")
    assert steps[0].names.count("_unit_rows") == draws
    assert steps[0].names.count("_rgg_draws") == isinstance(method, RectifiedLpJEPA)
    assert not draws or len(steps[0].found) <= (72 if isinstance(method, VISReg) else 28)


@pytest.mark.parametrize(
    "method", [LeJEPA(num_slices=8), RectifiedLpJEPA(num_slices=4)], ids=lambda method: method.name
)
def test_a_method_draws_by_the_count_alone(method: Method, by_kernels: Any) -> None:
    z = draw("z", 2, 10, 5).float().to(DEVICE)
    by_kernels()
    losses = [
        method(z, Step(2, number, seed, count=torch.tensor(count, device=DEVICE)))[0].item()
        for number, seed, count in ((0, 0, 1), (9, 0, 1), (0, 0, 2), (0, 1, 1))
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("method", [LeJEPA(), RectifiedLpJEPA()], ids=lambda method: method.name)
def test_a_gpu_finds_the_torch_forms_loss_and_repeats_bit_for_bit(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = draw("z", 2, 300, 64).float().cuda()
    step = Step(2, 0, 0, count=torch.tensor(3, device="cuda"))
    found = value_and_gradient(lambda z: method(z, step)[0], z)
    again = value_and_gradient(lambda z: method(z, step)[0], z)
    assert all(torch.equal(*parts) for parts in zip(found, again, strict=True))
    for module in (lejepa, wasserstein):
        monkeypatch.setattr(module, "runs_kernels", lambda _: False)
    expected = value_and_gradient(lambda z: method(z, step)[0], z)
    torch.testing.assert_close([*found], [*expected], rtol=1e-4, atol=1e-6)


# --- TF32


def test_products_in_tf32_leave_the_setting_of_the_process_as_it_was() -> None:
    setting = torch.backends.cuda.matmul
    before = setting.fp32_precision
    for enabled, inside in ((True, "tf32"), (False, before)):
        with contextlib.suppress(KeyError), tf32_products(enabled):
            assert setting.fp32_precision == inside
            raise KeyError
        assert setting.fp32_precision == before


@pytest.mark.usefixtures("meta_autocast")
@pytest.mark.parametrize("method", [LeJEPA(), RectifiedLpJEPA()], ids=lambda method: method.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_products_are_in_tf32_where_z_is_in_half_precision(method: Method, dtype: torch.dtype) -> None:
    found = set()

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function._schema.name in ("aten::mm", "aten::addmm_"):
                found.add(torch.backends.cuda.matmul.fp32_precision)
            return function(*args, **kwargs or {})

    with Products():
        method(on_meta(2, 16, 8, dtype=dtype).requires_grad_(), Step(2, 0, 0, count=on_meta().long()))
    assert found == {torch.backends.cuda.matmul.fp32_precision if dtype == torch.float32 else "tf32"}
