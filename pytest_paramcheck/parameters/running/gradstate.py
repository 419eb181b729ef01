"""Gradient states: NONE (never reached), ZERO (reached, no signal), SIGNAL. Three, never two."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import torch
from torch import Tensor

from ..subject.inventory import Entry
from ..tensors.content import bits, no_values


class GradState(enum.Enum):
    """What a parameter's gradient says about the backward passes since it was last cleared."""

    NONE = "NONE"
    ZERO = "ZERO"
    SIGNAL = "SIGNAL"


def grad_of(entry: Entry) -> Tensor | None:
    """Return an entry's gradient; in a mapping that is no module's, the tensor itself is one."""
    if entry.kind == "tensor":
        return entry.tensor
    return None if entry.tensor is None else entry.tensor.grad


def stored_values(grad: Tensor) -> Tensor:
    """Return the values a gradient stores: those of a sparse one that are not zero by layout."""
    values = grad.detach()
    if values.layout is torch.strided:
        return values
    if values.layout is torch.sparse_coo:
        return values.coalesce().values()
    return values.to_dense() if values.is_mkldnn else values.values()


def grad_state(grad: Tensor | None) -> GradState:
    """Return the state of a gradient. One without values (meta) was reached: SIGNAL.

    Zero means zero: layer-scale blocks that learn have gradients of 1e-9 of the largest one.
    A NaN is not zero.
    """
    if grad is None:
        return GradState.NONE
    if no_values(grad):
        return GradState.SIGNAL
    with torch.no_grad():
        values = stored_values(grad)
        try:
            signal = bool(values.ne(0).any())
        except (RuntimeError, NotImplementedError):
            signal = any(bool(flat.ne(0).any()) for flat in bits(values))
    return GradState.SIGNAL if signal else GradState.ZERO


def grad_states(grads: Sequence[Tensor | None]) -> list[GradState]:
    """Return the states of many gradients, with one synchronisation per device and dtype.

    A norm that is not zero is a signal; one that is may have underflowed and is looked at.
    """
    states: list[GradState | None] = [None] * len(grads)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, grad in enumerate(grads):
        if (
            type(grad) is Tensor
            and grad.layout is torch.strided
            and grad.dtype in _SCREENED
            and grad.numel()
            and grad.device.type != "meta"
        ):
            groups.setdefault((grad.device, grad.dtype), []).append(index)
        else:
            states[index] = grad_state(grad)
    with torch.no_grad():
        for indices in groups.values():
            norms = torch._foreach_norm([grads[i].detach() for i in indices])  # type: ignore[union-attr]
            for index, norm in zip(indices, torch.stack(norms).tolist(), strict=True):
                states[index] = GradState.SIGNAL if norm != 0 else grad_state(grads[index])
    return [state for state in states if state is not None]


_SCREENED = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
