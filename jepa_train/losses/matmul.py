"""Products of tall matrices: on a CPU by oneDNN, twice as fast as torch.matmul with MKL on AMD, on a GPU in TF32."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from jepa_train.distributed.torch_private import HAS_ONEDNN_MATMUL, onednn_matmul


@torch.no_grad()
def products(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T of (M, D) and (N, D): (M, N), in their dtype. No gradient; fastest if a and b are contiguous.

    On AMD's CPUs MKL, behind torch.matmul, does not use the widest vector units: 11.6 against 5.3 ms for (8192, 512) by
    (256, 512) on two cores of an EPYC 9005.
    """
    if HAS_ONEDNN_MATMUL and a.device.type == "cpu" and a.dtype == torch.float32 and a.numel() and b.numel():
        return onednn_matmul(_dense(a), _dense(b))
    return a @ b.mT


def is_half(x: Tensor) -> bool:
    """True for bf16 and fp16, the output of autocast: TF32, with fp16's mantissa and fp32's range, holds it exactly."""
    return x.dtype in (torch.bfloat16, torch.float16)


@contextlib.contextmanager
def tf32_products(enabled: bool) -> Iterator[None]:
    """Context in which a GPU multiplies fp32 matrices in TF32, which is faster, if enabled; else no change.

    Torch has no such option of one product. The process's setting is restored at the end.
    """
    setting = torch.backends.cuda.matmul
    before = setting.fp32_precision
    try:
        if enabled:
            setting.fp32_precision = "tf32"
        yield
    finally:
        if enabled:
            setting.fp32_precision = before


def _dense(x: Tensor) -> Tensor:
    """x, copied unless it or its transpose is contiguous: with other strides oneDNN takes minutes."""
    return x if x.is_contiguous() or x.mT.is_contiguous() else x.contiguous()
