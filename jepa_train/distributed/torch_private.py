"""Private parts of PyTorch. Each entry names the tested version and the replacement if it disappears."""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

# torch 2.14. The common base of nn.BatchNorm1d, 2d and 3d, which timm's layers inherit too. Without it: name the three,
# and GlobalBatchNorm derives from nn.Module with a forward of its own.
AnyBatchNorm = _BatchNorm

# torch 2.14: torch.compile emits it. Without it: torch.matmul, half as fast on AMD's CPUs. The public way in,
# Tensor.to_mkldnn, copies at both ends and is 10 to 15 % slower.
HAS_ONEDNN_MATMUL = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

# torch 2.14. One operation on every tensor of a list, in a few kernels on a GPU. Without them: loops over the tensors,
# hundreds of kernels per step.
foreach_add_ = torch._foreach_add_
foreach_copy_ = torch._foreach_copy_
foreach_norm = torch._foreach_norm

# torch 2.14. Independent draws of the Gamma distributions with these shape parameters, by a generator. Without it: the
# public torch.distributions.Gamma, which takes no generator and so draws from the global one.
gamma_sample = torch._standard_gamma

# torch 2.14. End the run where a boolean scalar of a GPU is false; the host does not wait for it. Without it: leave the
# check out.
assert_on_device = torch._assert_async


# torch 2.14, the attribute that GradScaler looks for. Without it: GradScaler synchronises at each step.
def pass_found_inf(optimizer: torch.optim.Optimizer) -> None:
    """Let GradScaler always call step, with optimizer.found_inf set: a scalar on the device, 0 if gradients are finite.

    Otherwise it reads that number on the host and calls step where it is 0.
    """
    vars(optimizer)["_step_supports_amp_scaling"] = True


Tensors = list[Tensor] | tuple[Tensor, ...]


# torch 2.14, as the operations above. Without them: a loop over the tensors.
def add_scaled_(tensors: Tensors, others: Tensors, scale: Tensor | float, *, sign: int = 1) -> None:
    """Add sign * scale * other to each tensor. A scale on a GPU is not read on the host.

    A CPU has an operation that rounds once, but takes a number.
    """
    if tensors[0].is_cpu:
        torch._foreach_add_(tensors, others, alpha=sign * float(scale))
    elif sign < 0:
        torch._foreach_sub_(tensors, torch._foreach_mul(others, scale))
    else:
        torch._foreach_add_(tensors, torch._foreach_mul(others, scale))


def lerp_(tensors: Tensors, others: Tensors, weight: Tensor) -> None:
    """Move each tensor by a scalar weight towards its other. A weight on a GPU is not read on the host."""
    if tensors[0].is_cpu:
        torch._foreach_lerp_(tensors, others, float(weight))
    else:
        add_scaled_(tensors, torch._foreach_sub(others, tensors), weight)


def onednn_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T of fp32 (M, D) and (N, D), each of them or its transpose contiguous, on a CPU with HAS_ONEDNN_MATMUL."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
