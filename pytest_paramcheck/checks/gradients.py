"""What the gradients of a backward pass that has run say: there, finite, of what norm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.running.gradstate import (
    GradState,
    grad_of,
    grad_state,
    grad_states,
    stored_values,
)
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import describe
from ..parameters.tensors.finite import count_text
from .finite import not_finite

_NO_BACKWARD = "has backward() run, and was zero_grad() not called after it?"
_SAY_WHY = "assert_grads_reach(model, loss_fn) says why"


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


def grads_present(entries: Sequence[Entry], *, allow_zero: bool = False) -> list[Finding]:
    """Find the entries whose gradient is None or (without ``allow_zero``) all zero."""
    grads = [grad_of(entry) for entry in entries]
    if not allow_zero:
        demand_values(
            zip(entries, grads, strict=True), "pass allow_zero=True to ask who was reached"
        )
    states = grad_states(grads)
    none_at_all = all(state is GradState.NONE for state in states)
    findings = []
    for entry, state in zip(entries, states, strict=True):
        if state is GradState.NONE:
            frozen = entry.tensor is not None and not entry.trainable
            findings.append(
                Finding(
                    tuple(entry.names),
                    "no gradient",
                    why="frozen: requires_grad is False" if frozen else "None: not reached",
                    hint="" if frozen else _NO_BACKWARD if none_at_all else _SAY_WHY,
                )
            )
        elif state is GradState.ZERO and not allow_zero:
            findings.append(
                Finding(
                    tuple(entry.names),
                    "zero gradient",
                    why="reached, no signal",
                    hint=f"{_SAY_WHY}; allow_zero=True if zeros are meant",
                )
            )
    return findings


def demand_values(
    pairs: Iterable[tuple[Entry, Tensor | None]], remedy: str = "run it on a real device"
) -> None:
    """Raise for a gradient whose values cannot be read."""
    for entry, grad in pairs:
        if grad is not None and (reason := no_values(grad)):
            raise ParamCheckUsageError(
                f"the gradient of {entry.name} cannot be checked: {reason}; {remedy}"
            )


def nothing_there(
    entries: Sequence[Entry], wanted: Sequence[Sequence[Entry]], question: str
) -> list[Finding]:
    """Find selections without any gradient: about them nothing was checked.

    ``wanted`` are the entries of each pattern; ``entries`` all that are selected.
    """
    findings: dict[Entry, Finding] = {}
    for group in wanted or [entries]:
        if any(grad_of(entry) is not None for entry in group):
            continue
        for entry in group:
            findings[entry] = Finding(
                tuple(entry.names),
                "no gradient",
                why=f"None: there is nothing {question}",
                hint=_NO_BACKWARD,
            )
    return list(findings.values())


def grads_finite(entries: Sequence[Entry]) -> list[Finding]:
    """Find the gradients that hold a NaN or an infinity."""
    dense: list[Entry] = []
    findings = []
    demand_values((entry, grad_of(entry)) for entry in entries)
    for entry in entries:
        grad = grad_of(entry)
        if grad is None:
            continue
        if grad.layout is torch.strided:
            alias = Entry(entry.name, grad, "tensor", True)
            alias.names = entry.names
            dense.append(alias)
        elif not bool(torch.isfinite(stored_values(grad)).all()):
            findings.append(Finding(tuple(entry.names), "", found=count_text(grad)))
    return [replace(f, problem="gradient not finite") for f in (*not_finite(dense), *findings)]


def validate_bounds(at_most: object, at_least: object) -> None:
    """Raise for bounds that are none."""
    bounds = {"at_most": at_most, "at_least": at_least}
    if at_most is None and at_least is None:
        raise ParamCheckUsageError("give a bound: at_most= or at_least=")
    for name, bound in bounds.items():
        if bound is None:
            continue
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not bound >= 0:
            raise ParamCheckUsageError(f"{name}={bound!r} is no norm: give a number, 0 or more")
    if (
        isinstance(at_most, (int, float))
        and isinstance(at_least, (int, float))
        and at_least > at_most
    ):
        raise ParamCheckUsageError(f"at_least={at_least} is above at_most={at_most}")


def grad_norm(
    entries: Sequence[Entry], *, at_most: float | None, at_least: float | None
) -> list[Finding]:
    """Find whether the total 2-norm of the gradients is out of bounds; each one's share shown."""
    held = [(entry, grad) for entry in entries if (grad := grad_of(entry)) is not None]
    demand_values(held)
    norms = norms_of([grad for _, grad in held])
    total = math.hypot(*norms) if not any(map(math.isnan, norms)) else math.nan
    if math.isnan(total):
        problem, expected = "gradient norm is NaN", "a number"
    elif at_most is not None and total > at_most:
        problem, expected = "gradient norm too large", f"at most {at_most:g}"
    elif at_least is not None and total < at_least:
        problem, expected = "gradient norm too small", f"at least {at_least:g}"
    else:
        return []
    ranked = sorted(
        zip(norms, (entry for entry, _ in held), strict=True),
        key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0],
        reverse=True,
    )
    rows = [(", ".join(entry.names), f"{norm:.4g}{_share(norm, total)}") for norm, entry in ranked]
    rows += [(", ".join(e.names), "None") for e in entries if grad_of(e) is None]
    return [
        Finding(
            tuple(name for _, entry in ranked for name in entry.names),
            problem,
            expected=expected,
            found=f"{total:.4g}",
            hint=(
                "assert_grads_finite(model) says which values are not finite"
                if not math.isfinite(total)
                else ""
            ),
            rows=tuple(rows),
        )
    ]


def norms_of(grads: Sequence[Tensor]) -> list[float]:
    """Return the 2-norms, in double precision where the device has it: squares neither overflow
    nor underflow. One synchronisation per device."""
    by_device: dict[torch.device, list[int]] = {}
    for index, grad in enumerate(grads):
        by_device.setdefault(grad.device, []).append(index)
    norms = [0.0] * len(grads)
    with torch.no_grad():
        for device, indices in by_device.items():
            real = torch.float32 if device.type == "mps" else torch.float64
            parts = [_norm(grads[index], real) for index in indices]
            for index, norm in zip(indices, torch.stack(parts).tolist(), strict=True):
                norms[index] = norm
    return norms


def _norm(grad: Tensor, real: torch.dtype) -> Tensor:
    values = stored_values(grad)
    if values.is_complex():
        values = torch.view_as_real(values)
    whole = getattr(values, "full_tensor", None)
    if callable(whole):  # a DTensor: the norm of the whole, not of this shard
        values = whole()
    norm: Tensor = torch.linalg.vector_norm(values.to(real))
    return norm


def _share(norm: float, total: float) -> str:
    if not math.isfinite(total) or total == 0:
        return ""
    return f"  {(norm / total) ** 2:.0%} of the squares"
