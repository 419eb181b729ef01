"""What a gradient is: never reached, exactly zero, not finite or nonzero. Four, never two.

Tests: ``tests/unit/test_gradients.py``, ``test_grads_none.py``, ``test_parts.py`` and
``test_reach.py``.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ..subject.inventory import Entry, Inventory
from ..tensors.content import bits, no_values
from ..tensors.finite import are_finite
from ..tensors.memory import ADDRESSED, in_storage
from ..tensors.sharded import local_of


class GradState(enum.Enum):
    """What a parameter's gradient says about the backward passes since it was last cleared.

    ``NONFINITE`` says nothing about who was reached: 0 x NaN is NaN, so a broken loss gives
    every dead branch a gradient. The values are the words of messages.
    """

    NONE = "none"
    ZERO = "zero"
    NONFINITE = "not finite"
    NONZERO = "nonzero"


def is_parameter(entry: Entry) -> bool:
    """Whether an entry has a gradient, rather than being one.

    In a mapping a Parameter (frozen too), a leaf that requires grad and a tensor told to retain
    its gradient have one; any other tensor is itself the gradient.
    """
    if entry.kind == "parameter":
        return True
    tensor = entry.tensor
    return tensor is not None and tensor.requires_grad and (tensor.is_leaf or tensor.retains_grad)


def grad_of(entry: Entry) -> Tensor | None:
    """Return an entry's gradient: its ``.grad``, or in a plain mapping the tensor itself; of a
    part, that of its elements."""
    tensor = entry.tensor
    if tensor is None or not is_parameter(entry):
        grad = tensor
    else:
        # Of another non-leaf torch would warn: it has none, and never will.
        grad = tensor.grad if tensor.is_leaf or tensor.retains_grad else None
    return grad if grad is None else of_part(entry, grad)


def of_part(entry: Entry, grad: Tensor) -> Tensor:
    """Return what of a whole parameter's gradient is an entry's."""
    if entry.part is None:
        return grad
    return entry.part.of(grad, f"the gradient of {entry.name.removesuffix(entry.part.text)}")


def demand_gradients(inventory: Inventory) -> None:
    """Raise for a subject that holds values only, and so has no gradients to ask for."""
    if inventory.saved:
        raise ParamCheckUsageError(
            f"{inventory.title} holds values, detached from the model: there are "
            f"no gradients in it; pass the model, or a mapping of its gradients"
        )


def demand_values(
    pairs: Iterable[tuple[Entry, Tensor | None]], remedy: str = "run it on a real device"
) -> None:
    """Raise for a gradient whose values cannot be read."""
    for entry, grad in pairs:
        if grad is not None and (reason := no_values(grad)):
            raise ParamCheckUsageError(
                f"the gradient of {entry.name} cannot be checked: {reason}; {remedy}"
            )


def stored_values(grad: Tensor) -> Tensor:
    """Return the values a gradient stores: those of a sparse one that are not zero by layout.

    Of a DTensor those of this rank's shard: every rank asks its own, and then they tell each other.
    """
    values = local_of(grad).detach()
    if values.layout is torch.strided:
        return values
    if values.layout is torch.sparse_coo:
        return values.coalesce().values()
    return values.to_dense() if values.is_mkldnn else values.values()


def grad_state(grad: Tensor | None) -> GradState:
    """Return the state of a gradient. One without values (meta) was reached: NONZERO.

    Zero means zero: layer-scale blocks that learn have gradients of 1e-9 of the largest one.
    """
    if grad is None:
        return GradState.NONE
    if no_values(grad):
        return GradState.NONZERO
    with torch.no_grad():
        if type(grad) in _PLAIN:
            return _state(stored_values(grad))
        try:
            return _state(stored_values(grad))
        except Exception:
            # A subclass that does not compute, whatever it raises: what it wraps decides.
            return _state_of_parts(grad)


def _state(values: Tensor) -> GradState:
    if values.is_quantized:
        values = values.dequantize()
    if values.element_size() == 1 and values.is_floating_point():
        if "float4" in str(values.dtype):  # it converts to nothing, and is always finite
            return _nonzero(any(bool(flat.ne(0).any()) for flat in bits(values)))
        values = values.float()  # float8 has neither ne() nor, in some kinds, isfinite()
    if not bool(torch.isfinite(values).all()):
        return GradState.NONFINITE
    return _nonzero(bool(values.ne(0).any()))


def _state_of_parts(grad: Tensor) -> GradState:
    if not are_finite([grad])[0]:  # the numbers beside its bits as well, such as a scale
        return GradState.NONFINITE
    return _nonzero(any(bool(flat.ne(0).any()) for flat in bits(grad)))


def _wide(part: Tensor) -> Tensor:
    return part.float() if part.element_size() == 1 else part


def _nonzero(nonzero: bool) -> GradState:
    return GradState.NONZERO if nonzero else GradState.ZERO


def grad_states(grads: Sequence[Tensor | None]) -> list[GradState]:
    """Return the states of many gradients, with one synchronization per device and dtype.

    A norm that is a number and not zero says NONZERO; one that is zero may have underflowed
    and one that is not finite may have overflowed: those are looked at.
    """
    states: list[GradState | None] = [None] * len(grads)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, grad in enumerate(grads):
        if (
            type(grad) is Tensor
            and grad.layout is torch.strided
            and grad.dtype in _SCREENED
            and grad.numel()
            and not grad.is_nested
            and grad.device.type != "meta"
            # To read a freed storage ends the process.
            and (grad.device.type not in ADDRESSED or in_storage(grad))
        ):
            groups.setdefault((grad.device, grad.dtype), []).append(index)
        else:
            states[index] = grad_state(grad)
    with torch.no_grad():
        for indices in groups.values():
            norms = torch._foreach_norm([grads[i].detach() for i in indices])  # type: ignore[union-attr]
            for index, norm in zip(indices, torch.stack(norms).tolist(), strict=True):
                told = norm != 0 and math.isfinite(norm)
                states[index] = GradState.NONZERO if told else grad_state(grads[index])
    return [state for state in states if state is not None]


def above_rounding(grads: Sequence[Tensor | None]) -> list[bool]:
    """Say of each gradient whether it is more than what sums that cancel leave behind.

    A bias that a softmax cancels has a gradient of 0 or of 1e-9, by seed and machine. Measured
    against the largest of these gradients, in the spacing of numbers of each one's own type.
    """
    sizes = [0.0 if grad is None else _largest(grad) for grad in grads]
    largest = max((size for size in sizes if math.isfinite(size)), default=0.0)
    return [
        grad is not None and not size <= _CANCELLED * _spacing(grad.dtype) * largest
        for grad, size in zip(grads, sizes, strict=True)
    ]


def _largest(grad: Tensor) -> float:
    try:
        values = stored_values(grad)
        if values.is_complex():
            values = torch.view_as_real(values.resolve_conj())
        return float(_wide(values).abs().max()) if values.numel() else 0.0
    except Exception:
        return math.inf  # a subclass that does not compute: not known to be small


def _spacing(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point or dtype.is_complex else 0.0


#: Spacings beside the largest gradient: a few additions round by as much.
_CANCELLED = 8
_SCREENED = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
_PLAIN = (Tensor, nn.Parameter)
