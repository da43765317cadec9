"""Compilation: the Triton kernels for a GPU, also where there is none, and the embedding by torch.compile.

Run: python -m pytest tests/slow/test_compile.py
"""

import functools
from pathlib import Path

import pytest
import torch
from triton_compile import Kernel, compile_kernels

from jepa_train.config import ModelConfig, TrainConfig, ViewsConfig
from jepa_train.model.batch_norm import convert_batch_norm
from jepa_train.model.network import build_network

SINES = {"values_ptr": "*fp32", "total_ptr": "*fp32", "num_values": "i32"}
SINES |= {"n": "i32", "columns": "i32", "num": "i32", "first": "fp32"}
TILE = {"SQUARED": True, "ROWS": 256, "COLUMNS": 32}
KERNELS = [
    Kernel(
        name=f"jepa_train.losses.ecf_triton:{name}",
        signature={**dict.fromkeys(pointers, "*fp32"), **SINES},
        constexprs=TILE,
        warps=16,
    )
    for name, pointers in (("_sums", ("x_ptr", "out_ptr")), ("_series", ("x_ptr", "in_ptr", "out_ptr")))
]
ROW_SIZES = ("rows", "columns", "per_split")
SCALES = ("scales_ptr", "weight_ptr", "bias_ptr")
RUNNING = ("running_mean_ptr", "running_var_ptr")
BATCH_NORM = (  # name; pointers to pixels, to fp32; integers; floats
    ("_deviations", ("x_ptr",), ("out_ptr",), ROW_SIZES, ()),
    (
        "_normalize",
        ("x_ptr", "out_ptr"),
        ("found_ptr", *SCALES, *RUNNING),
        ("ranks", "views", *ROW_SIZES),
        ("momentum", "correction", "eps"),
    ),
    ("_products", ("grad_ptr", "x_ptr"), (*SCALES, "out_ptr"), ROW_SIZES, ()),
    (
        "_input_gradient",
        ("grad_ptr", "x_ptr", "out_ptr"),
        (*SCALES, "sums_ptr"),
        ("ranks", "views", *ROW_SIZES),
        ("share",),
    ),
    ("_merge_deviations", (), ("parts_ptr", "out_ptr"), (*ROW_SIZES, "splits"), ()),
    ("_merge_products", (), ("parts_ptr", "out_ptr", "total_ptr"), ("columns", "views", "splits"), ()),
)
KERNELS += [
    Kernel(
        name=f"jepa_train.model.batch_norm_triton:{name}",
        signature={
            **dict.fromkeys(pixels, f"*{dtype}"),
            **dict.fromkeys(pointers, "*fp32"),
            "batches_ptr": "*i64",
            **dict.fromkeys(integers, "i32"),
            **dict.fromkeys(floats, "fp32"),
        },
        constexprs=({"COLUMNS": 64, "ROWS": 64} if pixels else {"COLUMNS": 16, "SPLITS": 256})
        | ({"RELU": True} if "weight_ptr" in pointers else {}),
        warps=8 if pixels else 4,
    )
    for name, pixels, pointers, integers, floats in BATCH_NORM
    for dtype in (("bf16", "fp32") if pixels else ("fp32",))
]


def test_the_kernels_compile_without_spills(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    compiled = compile_kernels(KERNELS, tmp_path)
    assert len(compiled) == 2 * len(KERNELS)
    assert [each for each in compiled if each.spills] == []


@pytest.mark.parametrize(("encoder", "per_view"), [("test_vit", False), ("test_resnet", True)])
def test_the_compiled_embedding_is_one_graph_and_changes_nothing(
    encoder: str, per_view: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced ahead of time without code generation, which takes a minute on a CPU."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager", fullgraph=True))
    config = TrainConfig(
        model=ModelConfig(encoder=encoder), views=ViewsConfig(num_local=1, global_size=32, local_size=16)
    )
    eager, compiled = (build_network(config, num_classes=5) for _ in range(2))
    for network in (eager, compiled) if per_view else ():
        convert_batch_norm(network, per_view=True)
    views = [torch.randn(count, 4, 3, size, size) for count, size in ((2, 32), (1, 16))]
    compiled.compile_embedding()
    for network in (eager, compiled):
        network(views).z.square().mean().backward()
    assert torch.equal(compiled(views).z, eager(views).z)
    gradients = [[p.grad for p in network.parameters() if p.grad is not None] for network in (eager, compiled)]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    assert compiled.state_dict().keys() == eager.state_dict().keys()
