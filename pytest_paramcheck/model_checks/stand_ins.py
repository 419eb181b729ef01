"""The optimizers of a case that declares none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LR = 0.01


def stand_ins(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Return optimizers over what trains, without weight decay, whose steps do not vanish.

    Adamax divides a gradient by its own size, so that its step has the size of the learning
    rate however small the gradient is. Adam squares it first: in float32 nothing moves below
    its eps of 1e-8, in float16 below 1e-4. Adagrad takes the sparse gradients that it refuses.
    """
    sparse = {
        id(p)
        for module in model.modules()
        if getattr(module, "sparse", False) is True
        for p in module.parameters(recurse=False)
    }
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    scattered = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            if id(parameter) in sparse:
                scattered.append(parameter)
            else:
                by_dtype.setdefault(parameter.dtype, []).append(parameter)
    made: list[torch.optim.Optimizer] = []
    if by_dtype:
        groups = [{"params": held, "eps": _smallest(dtype)} for dtype, held in by_dtype.items()]
        made.append(torch.optim.Adamax(groups, lr=LR))
    if scattered:
        made.append(torch.optim.Adagrad(scattered, lr=LR, eps=1e-20))
    return made


def _smallest(dtype: torch.dtype) -> float:
    """Return what a gradient of zeros can be divided by: not zero once it is of this type."""
    if not (dtype.is_floating_point or dtype.is_complex):
        return 1e-8
    info = torch.finfo(dtype)
    return float(info.tiny * info.eps if dtype is torch.float16 else info.tiny)
