"""LARS in a number of kernels that does not grow with the number of parameters, and without reading the device."""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from jepa_train.distributed.torch_private import (
    add_scaled_,
    foreach_add_,
    foreach_copy_,
    foreach_norm,
    pass_found_inf,
)

_BLOCK = 1024  # elements; a block belongs to one parameter


class Lars(torch.optim.Optimizer):
    """LARS with clipped local rates, equal to timm's (clip_trust, eps 1e-8), on a CPU bit for bit.

        d = (g + wd * w) * min(eta * |w| / (|g| + wd * |w| + 1e-8) / lr, 1);   v = momentum * v + d;   w -= lr * v

    in groups with "adapted"; d = g in the others. Where |w| or |g| is 0 the factor is min(1 / lr, 1).

    Updates and momenta of a group lie in one buffer each, so that scaling every parameter by its own factor is one
    operation; "momentum_buffer" in the state is a view of it. Parameters without a gradient are left out.
    torch.amp.GradScaler always calls step, which has no effect where the scaler has set found_inf above 0.

    Args:
        groups: with "params" of one type on one device, "lr" (a number or a scalar tensor on that device),
            "weight_decay" and "adapted".
        eta: largest step as a fraction of a weight's norm, before lr.
    """

    def __init__(self, groups: list[dict[str, Any]], *, momentum: float, eta: float) -> None:
        super().__init__(groups, {"momentum": momentum, "eta": eta})
        pass_found_inf(self)
        self._buffers: dict[int, _Buffers] = {}  # by the group's index

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; without effect if the scaler has set found_inf above 0."""
        assert closure is None
        for index, group in enumerate(self.param_groups):
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                buffers = self._buffers_of(index, parameters)
                _update(parameters, buffers, group, found_inf=getattr(self, "found_inf", None))

    def _buffers_of(self, index: int, parameters: list[Tensor]) -> "_Buffers":
        """The group's buffers; new ones at its first step, for other parameters, and after load_state_dict."""
        momenta = [self.state[parameter].get("momentum_buffer") for parameter in parameters]
        buffers = self._buffers.get(index)
        if buffers is None or list(map(id, momenta)) != list(map(id, buffers.velocities)):
            buffers = self._buffers[index] = _Buffers.like(parameters)
            for parameter, momentum, velocity in zip(parameters, momenta, buffers.velocities, strict=True):
                if momentum is not None:
                    velocity.copy_(momentum)
                self.state[parameter]["momentum_buffer"] = velocity
        return buffers


class _Buffers(NamedTuple):
    """Updates d and velocities v of a group, each (blocks, _BLOCK) with views in the parameters' shapes."""

    update: Tensor
    updates: list[Tensor]
    velocity: Tensor
    velocities: list[Tensor]
    owners: Tensor  # (blocks,), index of each block's parameter

    @classmethod
    def like(cls, parameters: list[Tensor]) -> Self:
        """Zeros for these parameters."""
        blocks = torch.tensor([-(-parameter.numel() // _BLOCK) for parameter in parameters])
        first = (blocks.cumsum(0) - blocks).tolist()
        owners = torch.arange(len(parameters)).repeat_interleave(blocks).to(parameters[0].device)

        def zeros() -> tuple[Tensor, list[Tensor]]:
            whole = parameters[0].new_zeros(len(owners), _BLOCK, requires_grad=False)
            pairs = zip(first, parameters, strict=True)
            return whole, [whole[start:].as_strided(part.shape, part.stride()) for start, part in pairs]

        return cls(*zeros(), *zeros(), owners)


def _update(parameters: list[Tensor], buffers: _Buffers, group: dict[str, Any], *, found_inf: Tensor | None) -> None:
    """Update the parameters of a group and their velocities; with found_inf above 0, leave both as they are."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    before = buffers.velocity if found_inf is None else buffers.velocity.clone()
    buffers.velocity.mul_(group["momentum"])
    if group["adapted"]:
        foreach_copy_(buffers.updates, gradients)
        factors = _factors(parameters, gradients, group)
        if group["weight_decay"]:
            foreach_add_(buffers.updates, parameters, alpha=group["weight_decay"])
        buffers.update.mul_(factors.index_select(0, buffers.owners)[:, None])
        buffers.velocity.add_(buffers.update)
    else:
        foreach_add_(buffers.velocities, gradients)
    lr = group["lr"]
    if found_inf is not None:
        torch.where(found_inf > 0, before, buffers.velocity, out=buffers.velocity)
        lr = lr * (found_inf == 0)
    add_scaled_(parameters, buffers.velocities, lr, sign=-1)


def _factors(parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> Tensor:
    """(P,), the factor of each parameter's update. In timm's order of operations, for equal rounding."""
    weights, slopes = torch.stack(foreach_norm([*parameters, *gradients])).chunk(2)
    decayed = slopes + weights * group["weight_decay"] if group["weight_decay"] else slopes
    ratios = group["eta"] * weights / (decayed + 1e-8)
    ratios.masked_fill_(torch.minimum(weights, slopes) == 0, 1.0)
    return (ratios / group["lr"]).clamp(max=1.0)
