"""The Triton kernels compile for a GPU, also where there is none.

Run: python -m pytest tests/slow/test_triton_compile.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TO_COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from jepa_train.losses import ecf_triton as kernels

numbers = {"n": "i32", "columns": "i32", "num": "i32", "first": "fp32"}
fixed = {"SQUARED": True, "ROWS": 256, "COLUMNS": 32}
for name in ("_sums", "_series"):
    kernel = getattr(kernels, name)
    pointers = {argument: "*fp32" for argument in kernel.arg_names if argument.endswith("_ptr")}
    source = ASTSource(kernel, pointers | numbers | dict.fromkeys(fixed, "constexpr"), constexprs=fixed)
    compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 16})
"""


def test_the_kernels_compile(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", TO_COMPILE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
