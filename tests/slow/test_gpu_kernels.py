"""Kernels of losses and views compiled for GPUs, which this machine need not have, and the sort of long rows.

Run: python -m pytest tests/slow/test_gpu_kernels.py
"""

from pathlib import Path

import pytest
import torch
from ranks import draw
from triton_compile import Kernel, compile_kernels

pytest.importorskip("triton")
from jepa_train.losses.rank_matching_triton import subtract_by_rank

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOATS = "*fp32"
DRAWN = {"out_ptr": FLOATS, "count_ptr": "*i64", "seed": "i64"}
STATISTICS = {
    **dict.fromkeys(("sums_ptr", "out_ptr", "values_ptr"), FLOATS),
    **dict.fromkeys(("columns", "tiles", "samples", "num", "stride"), "i32"),
    **dict.fromkeys(("scale", "first"), "fp32"),
}
SORTED = {"x_ptr": FLOATS, "y_ptr": FLOATS, "squares_ptr": FLOATS, "num": "i32", "sharing": "i32", "scale": "fp32"}
VIEWS = {
    **dict.fromkeys(("fields_ptr", "norm_ptr"), FLOATS),
    **{"first_ptr": "*i64", "out_ptr": "*bf16", "channels": "i32", "side": "i32"},
    **{f"{name}_stride": "i32" for name in ("view", "image", "channel", "row", "column")},
}
GENERALIZED = DRAWN | {"total": "i32"} | dict.fromkeys(("mu", "sigma", "shift", "spread", "slope", "offset"), "fp32")


def kernel(name: str, signature: dict[str, str], warps: int, **constexprs: bool | int) -> Kernel:
    return Kernel(name=f"jepa_train.losses.{name}", signature=signature, constexprs=constexprs, warps=warps)


KERNELS = [
    # 2048, the widest, takes a minute to compile: 106 registers, no spills
    *(kernel("rank_matching_triton:_subtract_by_rank", SORTED, max(w // 256, 1), WIDTH=w) for w in (16, 512)),
    kernel("ecf_triton:_statistics", STATISTICS, 1, COLUMNS=32, KNOTS=16),
    *(
        kernel("draws_triton:_unit_rows", DRAWN | {"num": "i32", "dim": "i32"}, 4, ROWS=r, QUADS=512 // r)
        for r in (1, 8)
    ),
    *(
        kernel("draws_triton:_rgg_draws", GENERALIZED, 4, POWER=power, BOOSTED=boosted, RECTIFIED=True, SIZE=size)
        for power, boosted, size in ((2, True, 2048), (1, False, 2048), (0, True, 1024), (0, False, 1024))
    ),
    *(
        Kernel(
            name="jepa_train.data.augment_triton:_make_view",
            signature=VIEWS | {"pixels_ptr": f"*u{bits}", "out_ptr": f"*{dtype}"},
            constexprs={"channel_stride": 1, "IS_COLOR": color, "MOST": 2**bits - 1, "SIZE": size, "PADDED": padded},
            warps=max(padded**2 // 256, 1),
        )
        for bits, color, size, padded, dtype in (
            (8, True, 12, 16, "fp32"),
            (8, True, 32, 32, "bf16"),
            (8, True, 64, 64, "bf16"),
            (8, True, 64, 64, "fp16"),
            (16, True, 32, 32, "bf16"),
            (16, False, 32, 32, "bf16"),
        )
    ),
]


def test_kernels_compile_without_spills(tmp_path: Path) -> None:
    found = compile_kernels(KERNELS, tmp_path)
    assert len(found) == 2 * len(KERNELS)
    assert [compiled for compiled in found if compiled.spills] == []


@pytest.mark.parametrize("num", [300, 512])
def test_a_long_row_is_sorted_as_by_torch(num: int) -> None:
    x, y = draw("x", 1, 1, num).float(), draw("y", 1, 1, num).float().relu()
    x[..., : num // 3] = x[..., : num // 3].round()  # ties
    ordered, places = x.sort(dim=-1, stable=True)
    expected = torch.empty_like(x).scatter_(-1, places, ordered - y.sort(dim=-1).values)
    found = x.to(DEVICE)
    subtract_by_rank(found, y.to(DEVICE), torch.empty(1, 1, device=DEVICE), scale=1.0)
    assert torch.equal(found.cpu(), expected)
