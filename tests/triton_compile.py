"""Compilation of Triton kernels for GPUs that this machine need not have: registers and spills, by Triton's own ptxas.

In a process of its own, since Triton decides at its import between the compiler and the interpreter of the tests.
"""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

CAPABILITIES = (80, 90)  # A100 and H100 / H200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel as one launch compiles it.

    Args:
        name: "package.module:function".
        signature: Triton's types of the arguments that are no constexprs: {"x_ptr": "*fp32", "n": "i32"}. Pointers
            count as aligned to 16 bytes, as torch allocates.
        constexprs: values of the other arguments.
    """

    name: str
    signature: Mapping[str, str]
    constexprs: Mapping[str, bool | int | float | None] = dataclasses.field(default_factory=dict)
    warps: int = 4


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Results of one compilation, as ptxas reports them; shared memory as Triton does, in bytes."""

    name: str
    capability: int
    registers: int  # per thread, at most 255
    spills: int  # bytes of spill stores and loads
    shared: int


def compile_kernels(
    kernels: Sequence[Kernel], cache: Path, capabilities: Sequence[int] = CAPABILITIES
) -> list[Compiled]:
    """Compile every kernel for every capability. One process for all of them.

    Args:
        cache: an empty folder, so that nothing compiled before is reused.

    Raises:
        AssertionError: a kernel does not compile; with the compiler's message.
    """
    request = json.dumps([[dataclasses.asdict(kernel) for kernel in kernels], list(capabilities)])
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, __file__], input=request, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [Compiled(**each) for each in json.loads(done.stdout.splitlines()[-1])]


def _compiled(kernel: Kernel, capability: int) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name = kernel.name.split(":")
    function = getattr(importlib.import_module(module), name)
    types = {argument: kernel.signature.get(argument, "constexpr") for argument in function.arg_names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(types.values()) if kind.startswith("*")}
    source = ASTSource(function, types, constexprs=dict(kernel.constexprs), attrs=aligned)
    target = GPUTarget("cuda", capability, 32)
    made = triton.compile(source, target=target, options={"num_warps": kernel.warps})
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.ptx")
        file.write_text(made.asm["ptx"])
        architecture = re.search(r"^\.target (\w+)", made.asm["ptx"], re.MULTILINE)[1]
        command = [ptxas, "-v", f"--gpu-name={architecture}", file, "-o", f"{file}.cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = int(re.search(r"Used (\d+) registers", report)[1])
    spills = sum(int(size) for size in re.findall(r"(\d+) bytes spill", report))
    return Compiled(kernel.name, capability, registers, spills, made.metadata.shared)


if __name__ == "__main__":
    requested, numbers = json.load(sys.stdin)
    results = [_compiled(Kernel(**each), number) for each in requested for number in numbers]
    sys.stdout.write(json.dumps([dataclasses.asdict(each) for each in results]))
