"""LeJEPA's Table 6 (arXiv 2511.08544): SIGReg's time over batch size, slices and points, 10 runs, next to the paper's.

The paper says neither what its times include nor how wide the embedding is. Ours: one view of D = 512 float32
embeddings, forward and backward from z, projections included, slices given; points are knots on [-5, 5]. Expect the
paper's shape on a GPU: linear in N, nearly flat in M and points until the GPU is full. On a CPU it is linear in M too.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any, ClassVar

import torch

from benchmarks.gradients import forward_backward
from benchmarks.timing import QUICK, Effort, Setting, interleaved
from jepa_train.base.seeds import generator
from jepa_train.losses.slices import unit_slices
from jepa_train.methods.lejepa import sigreg

DIM = 512
RUNS = Effort(least=10, most=10, sample=0.0)  # every run is timed alone, as in the paper

# N, M, points -> mean, std in ms, on a V100 with 16 GB: LeJEPA, Table 6
PAPER = {
    (512, 512, 16): (0.465236, 0.011642),
    (512, 512, 64): (0.461317, 0.003894),
    (512, 512, 256): (0.627644, 0.003337),
    (2048, 512, 16): (1.406441, 0.002415),
    (8192, 512, 16): (6.188304, 0.007226),
    (8192, 8192, 16): (8.685009, 0.038829),
    (32768, 512, 16): (26.373118, 0.012732),
    (512, 2048, 16): (0.465614, 0.005274),
    (512, 8192, 16): (0.670379, 0.006854),
}
QUICK_LIMIT = 512 * 512 * 16  # largest N * M * points of a quick run


@dataclass(frozen=True, kw_only=True)
class PaperTiming:
    """A row of the paper's table: ours, in seconds per run, and the paper's in ms."""

    num: int
    num_slices: int
    num_knots: int
    ours: tuple[float, ...]
    paper_mean_ms: float
    paper_std_ms: float

    HEADER: ClassVar[tuple[str, ...]] = ("N", "M", "points", "mean, ms", "std, ms", "V100 mean, ms", "V100 std, ms")
    NOTE: ClassVar[str] = (
        "SIGReg, forward + backward, 10 runs, as LeJEPA's Table 6 (arXiv 2511.08544), whose numbers for a V100 stand "
        f"on the right. N samples of D = {DIM}, M slices; ours includes the projections."
    )

    @property
    def ours_ms(self) -> tuple[float, float]:
        """Mean and standard deviation."""
        return 1e3 * mean(self.ours), 1e3 * stdev(self.ours)

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        times = (*self.ours_ms, self.paper_mean_ms, self.paper_std_ms)
        return *map(str, (self.num, self.num_slices, self.num_knots)), *(f"{value:.3f}" for value in times)

    def record(self) -> dict[str, Any]:
        """For the JSON file."""
        mean_ms, std_ms = self.ours_ms
        return dataclasses.asdict(self) | {"mean_ms": mean_ms, "std_ms": std_ms}


def run(setting: Setting) -> Iterator[PaperTiming]:
    """One row per row of the paper's table; when quick, its smallest."""
    device = setting.device
    for (num, num_slices, num_knots), (paper_mean, paper_std) in PAPER.items():
        if setting.quick and num * num_slices * num_knots > QUICK_LIMIT:
            continue
        z = torch.randn(1, num, DIM, generator=generator(0, "z", device=device), device=device)
        loss = partial(sigreg, slices=unit_slices(DIM, num_slices, 0, device=device), num_knots=num_knots)
        effort = QUICK if setting.quick else RUNS
        (ours,) = interleaved([partial(forward_backward, loss, z)], effort, device)
        yield PaperTiming(
            num=num,
            num_slices=num_slices,
            num_knots=num_knots,
            ours=ours,
            paper_mean_ms=paper_mean,
            paper_std_ms=paper_std,
        )
