"""Every use of a private part of PyTorch. Each entry names the version it was tested with and the effect of its loss.

Lowest module of the package: it imports nothing of ours.
"""

import contextlib
import importlib
import socket
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

# torch 2.14. The common base of nn.BatchNorm1d, 2d and 3d, which timm's layers inherit too. Without it: name the three,
# and GlobalBatchNorm derives from nn.Module with a forward of its own.
AnyBatchNorm = _BatchNorm

# torch 2.14: torch.compile emits it. Without it: torch.matmul, half as fast on AMD's CPUs. The public way in,
# Tensor.to_mkldnn, copies at both ends and is 10 to 15 % slower.
HAS_ONEDNN_MATMUL = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

# torch 2.14. Move each tensor of a list by a weight towards its other, in one kernel on a GPU. Without it: Tensor.lerp_
# of each, hundreds of kernels per step.
lerp_ = torch._foreach_lerp_

# torch 2.14. Independent draws of the Gamma distributions with these shape parameters, by a generator. Without it: the
# public torch.distributions.Gamma, which takes no generator and so draws from the global one.
gamma_sample = torch._standard_gamma

# torch 2.14. End the run where a boolean scalar of a GPU is false; the host does not wait for it. Without it: leave the
# check out.
assert_on_device = torch._assert_async

_RENDEZVOUS: Any = importlib.import_module("torch.distributed.rendezvous")  # dist.rendezvous is a function of it


def onednn_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T of fp32 (M, D) and (N, D), each of them or its transpose contiguous, on a CPU with HAS_ONEDNN_MATMUL."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


def listen_at_own_address() -> None:
    """Let the store by which ranks find each other listen at the address that they use, not on all of the machine's.

    It asks for no password. To be called before the process group is made, in every process.
    torch 2.14. Without it: only a firewall keeps others from that store.
    """
    _RENDEZVOUS._create_c10d_store = _create_store


def _create_store(
    hostname: str, port: int, rank: int, world_size: int, timeout: timedelta, use_libuv: bool = True
) -> Any:
    """Replacement of torch's own, which listens everywhere."""
    listener = None
    if rank == 0:
        family = socket.AF_INET6 if ":" in hostname else socket.AF_INET
        with contextlib.suppress(OSError):  # a translated address, which this machine does not have
            listener = socket.create_server((hostname, port), family=family).detach()
    return _RENDEZVOUS.TCPStore(
        host_name=hostname,
        port=port,
        world_size=world_size,
        is_master=rank == 0,
        timeout=timeout,
        multi_tenant=True,
        master_listen_fd=listener,
        use_libuv=use_libuv,
    )
