"""Gradient states: NONE (never reached), ZERO (reached, no signal), SIGNAL. Three, never two."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import torch
from torch import Tensor

from ..findings import Finding
from ..parameters.content import no_values
from ..parameters.describe import describe
from ..parameters.inventory import Entry


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


def grad_state(grad: Tensor | None) -> GradState:
    """Return the state of a gradient. One without values (meta) was reached: SIGNAL.

    Zero means zero: layer-scale blocks that learn have gradients of 1e-9 of the largest one.
    A NaN is not zero.
    """
    if grad is None:
        return GradState.NONE
    if no_values(grad):
        return GradState.SIGNAL
    values = grad.detach()
    if values.layout is not torch.strided:
        values = values.coalesce().values() if values.is_sparse else values.to_dense()
    return GradState.SIGNAL if bool(values.ne(0).any()) else GradState.ZERO


def grads_none(entries: Iterable[Entry], *, allow_zero: bool = False) -> list[Finding]:
    """Find the entries that have a gradient (with ``allow_zero``: one that is not all zero)."""
    findings = []
    for entry in entries:
        grad = grad_of(entry)
        if grad is None:
            continue
        state = grad_state(grad)
        if allow_zero and state is GradState.ZERO:
            continue
        findings.append(
            Finding(
                names=tuple(entry.names),
                problem="gradient is not None",
                found=f"{state.value}, {describe(grad)}",
                why=(
                    "zero_grad(set_to_none=False) leaves zeros where a gradient was"
                    if state is GradState.ZERO
                    else ""
                ),
                hint=(
                    "zero_grad(set_to_none=True), or allow_zero=True if zeros are meant"
                    if state is GradState.ZERO
                    else "a backward pass has already run: zero_grad(set_to_none=True) clears it"
                ),
            )
        )
    return findings
