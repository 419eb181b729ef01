"""Parameters that each forward brings back to where it keeps them: masked, clamped, cut to a norm.

Autoregressive convolutions write ``self.weight.data *= self.mask``, EEGNet's cut each filter to a
largest norm. The first forward of a fresh build may move such a parameter, and that is no change of
the model: it computes what it would compute of the moved one. A forward that draws weights anew, or
sets them once from what it sees, is another matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..parameters.subject.reading import take_inventory


def kept_in_bounds(model: nn.Module, names: Iterable[str], forward: Callable[[], None]) -> set[str]:
    """Return which of these names are of parameters that each forward brings back.

    Moved away they come back to another place, for it is theirs and not a new one, and stay there.
    The model is changed.
    """
    __tracebackhide__ = True
    wanted = set(names)
    entries = [
        entry
        for entry in take_inventory(model).parameters
        if wanted.intersection(entry.names) and entry.tensor is not None
    ]
    moving = [
        (entry, entry.tensor)
        for entry in entries
        if entry.tensor is not None and entry.tensor.is_floating_point() and entry.tensor.numel()
    ]
    if not moving:
        return set()
    before = [tensor.detach().clone() for _, tensor in moving]
    away = [_moved(tensor) for _, tensor in moving]
    forward()
    back = [tensor.detach().clone() for _, tensor in moving]
    forward()
    found: set[str] = set()
    for (entry, tensor), at_first, moved, there in zip(moving, before, away, back, strict=True):
        returned = not _close(there, moved) and not _close(there, at_first)
        if returned and _close(tensor.detach(), there):
            found.update(entry.names)
    return found


def _close(one: Tensor, other: Tensor) -> bool:
    # A norm that was cut once is at the bound but for rounding, and may be cut again.
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def _moved(tensor: Tensor) -> Tensor:
    """Move a parameter, by more than its own size; return what it is now."""
    size = tensor.detach().abs().max() + 1
    with torch.no_grad():
        tensor.data.add_(3 * size * torch.randn_like(tensor))
    return tensor.detach().clone()
