"""Selection of the training device: the GPU of CUDA or ROCm, an Apple GPU (MPS), or the CPU.

Code for MPS has never run on an Apple machine. Operations that torch lacks there run on the CPU, with its warning
(PYTORCH_ENABLE_MPS_FALLBACK, which `import jepa_train` sets); float64, which it lacks too, is replaced by wide_dtype.
"""

import os

import torch

from jepa_train.distributed import collectives


def training_device() -> torch.device:
    """This process's GPU; without one an Apple GPU, if this is the only rank and JEPA_MPS is not 0; else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    # gloo, which joins the ranks where there is no CUDA, takes tensors of the CPU alone
    wanted = os.environ.get("JEPA_MPS", "1") != "0" and collectives.world_size() == 1
    return torch.device("mps" if wanted and torch.backends.mps.is_available() else "cpu")


def has_own_streams(device: torch.device) -> bool:
    """True for a GPU of CUDA or ROCm, and for the meta device, which stands for one in tests."""
    return device.type not in ("cpu", "mps")


def wide_dtype(device: torch.device) -> torch.dtype:
    """float64, in which sums and decompositions are exact enough; float32 on MPS, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64
