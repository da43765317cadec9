"""Allocator: large blocks are reused, not fetched from the system anew.

Run: python -m pytest tests/unit/base/test_allocator.py
"""

import platform
import resource

import pytest
import torch

from jepa_train.base.allocator import keep_freed_memory

MEGABYTES = 40  # glibc would map and unmap each one


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps its own rules")
def test_a_freed_block_is_reused_without_page_faults() -> None:
    keep_freed_memory()
    for _ in range(30):
        torch.ones(MEGABYTES, 2**18)  # float32; the heap grows to its size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(MEGABYTES, 2**18)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < MEGABYTES * 2**20 / resource.getpagesize(), "fewer than the pages of one block"
