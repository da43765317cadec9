"""Matrix products against sums over every pair of rows, by oneDNN and by torch.

Run: python -m pytest tests/unit/losses/test_matmul.py
"""

import pytest
import torch
from ranks import draw

from jepa_train.losses import matmul as module
from jepa_train.losses.matmul import products


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def way(request, monkeypatch):
    """Both ways, where the processor has both."""
    monkeypatch.setattr(module, "HAS_ONEDNN_MATMUL", module.HAS_ONEDNN_MATMUL and request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "n", "d"), [(70, 33, 20), (1, 5, 4), (3, 1, 1), (0, 3, 4), (3, 2, 0)])
def test_products_are_those_of_every_pair_of_rows(m, n, d, dtype):
    a, b = draw("a", m, d).to(dtype), draw("b", n, d).to(dtype)
    exact = (a.double()[:, None] * b.double()).sum(-1)
    strided = torch.zeros(m, 2 * d, dtype=dtype)[:, ::2].copy_(a)
    for left in (a, a.mT.contiguous().mT, strided):
        for right in (b, b.mT.contiguous().mT, b.flip(0).flip(0)):
            product = products(left, right)
            assert product.dtype == dtype
            tolerance = 1e-5 if dtype == torch.float32 else 1e-12
            torch.testing.assert_close(product.double(), exact, rtol=tolerance, atol=tolerance)
