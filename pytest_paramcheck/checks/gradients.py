"""What the gradients of a backward pass that has run say: there, finite, of what norm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import first_line
from ..parameters.running.gradstate import (
    GradState,
    demand_values,
    grad_of,
    grad_state,
    grad_states,
    is_parameter,
    stored_values,
)
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.call import exchange
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import describe
from ..parameters.tensors.finite import count_text
from ..parameters.tensors.sharded import counts_here, has_elements_here, is_partial, mesh_of
from .finite import not_finite
from .reach import INFERENCE, NONFINITE_HINT

_NO_BACKWARD = "call loss.backward() first, and zero_grad() only after the assertion"
_SAY_WHERE = "assert_grads_reach(model, loss_fn) says which operation it comes from"
_SAY_WHY = "assert_grads_reach(model, loss_fn) says why"


def grads_none(
    entries: Iterable[Entry], *, allow_zero: bool = False, place: str = ""
) -> list[Finding]:
    """Find the entries that have a gradient (with ``allow_zero``: one that is not all zero).

    ``place``: where gradients are said to be, if not in ``.grad``.
    """
    findings = []
    for entry in entries:
        grad = grad_of(entry)
        if grad is None:
            continue
        if allow_zero:
            demand_values([(entry, grad)], "leave allow_zero out to ask whether it is None")
        state = grad_state(grad)
        if allow_zero and state is GradState.ZERO:
            continue
        zero = state is GradState.ZERO
        found = describe(grad)
        if state is GradState.NONFINITE:
            found += f", {count_text(grad)}"
        elif not no_values(grad):  # of one on meta nothing was seen but that it is there
            found = f"{state.value}, {found}"
        findings.append(
            Finding(
                names=tuple(entry.names),
                problem=_not_none(state, allow_zero),
                found=found,
                why="zero_grad(set_to_none=False) leaves zeros where a gradient was"
                if zero
                else "",
                hint=_clear(entry, zero, place),
            )
        )
    return findings


def _not_none(state: GradState, allow_zero: bool) -> str:
    if state is GradState.NONFINITE:
        return "gradient not finite"
    return "nonzero gradient" if allow_zero else "gradient is not None"


def _clear(entry: Entry, zero: bool, place: str) -> str:
    """Return what to do about a gradient that should not be there."""
    if place:
        return f"zero_grad() does not see {place}: set it to zero too, and pass allow_zero=True"
    if not is_parameter(entry):
        return (
            "in a mapping a plain tensor is taken for a gradient, "
            "an nn.Parameter or a leaf that requires grad for a parameter"
        )
    if zero:
        return "zero_grad(set_to_none=True), or allow_zero=True if zeros are right"
    return (
        "zero_grad(set_to_none=True) clears what a backward pass left; "
        "where none should reach it: requires_grad_(False), or detach() its output"
    )


def grads_present(entries: Sequence[Entry], *, allow_zero: bool = False) -> list[Finding]:
    """Find the entries whose gradient is None, not finite or (without ``allow_zero``) all zero."""
    grads = [grad_of(entry) for entry in entries]
    if not allow_zero:
        demand_values(
            zip(entries, grads, strict=True),
            "pass allow_zero=True to ask only whether there is a gradient",
        )
    states = grad_states(grads)
    none_at_all = all(state is GradState.NONE for state in states)
    findings = []
    for entry, grad, state in zip(entries, grads, states, strict=True):
        names = tuple(entry.names)
        if grad is None:
            why, hint = _why_none(entry)
            if not why:
                why, hint = "None: not reached", _NO_BACKWARD if none_at_all else _SAY_WHY
            empty = entry.tensor is not None and not has_elements_here(entry.tensor)
            findings.append(Finding(names, "no gradient", why=why, hint=hint, everywhere=empty))
        elif state is GradState.NONFINITE:
            findings.append(
                Finding(
                    names,
                    "gradient not finite",
                    found=count_text(grad),
                    hint=NONFINITE_HINT,
                )
            )
        elif state is GradState.ZERO and not allow_zero:
            findings.append(
                Finding(
                    names,
                    "zero gradient",
                    why="gradient is all zero",
                    hint=f"{_SAY_WHY}; allow_zero=True if zeros are right",
                    everywhere=True,
                )
            )
    return findings


def _why_none(entry: Entry) -> tuple[str, str]:
    """Return why no backward pass can give an entry a gradient, and what to do; else ``""``."""
    tensor = entry.tensor
    if tensor is None or not is_parameter(entry):
        return "", ""
    if not tensor.requires_grad:
        return "frozen: requires_grad is False", ""
    if not is_lazy(tensor) and tensor.is_inference():
        return INFERENCE
    return "", ""


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
    # In a mapping there is no model that a loss could be run with.
    model = all(isinstance(entry.tensor, nn.Parameter) for entry in entries)
    return [
        replace(f, problem="gradient not finite", hint=_SAY_WHERE if model else "")
        for f in (*not_finite(dense), *findings)
    ]


def validate_bounds(at_most: object, at_least: object) -> None:
    """Raise for bounds that are none."""
    bounds = {"at_most": at_most, "at_least": at_least}
    if at_most is None and at_least is None:
        raise ParamCheckUsageError("give a bound: at_most= or at_least=")
    for name, bound in bounds.items():
        if bound is None:
            continue
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not bound >= 0:
            raise ParamCheckUsageError(f"{name}={bound!r} is not a norm: give a number, 0 or more")
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
    for entry, grad in held:
        if is_partial(grad):
            raise ParamCheckUsageError(
                f"the gradient of {entry.name} holds partial sums, which nobody has added up: "
                f"redistribute it first"
            )
    norms = _of_whole(held, norms_of([grad for _, grad in held]))
    total = math.hypot(*norms) if not any(map(math.isnan, norms)) else math.nan
    if math.isnan(total):
        problem = "gradient norm is NaN"
    elif math.isinf(total):
        problem = "gradient norm is infinite"  # at least anything, and proves nothing
    elif at_most is not None and total > at_most:
        problem = f"gradient norm {total:.4g} is above at_most={at_most:g}"
    elif at_least is not None and total < at_least:
        problem = f"gradient norm {total:.4g} is below at_least={at_least:g}"
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
            hint=(
                "assert_grads_finite(model) says which values are not finite"
                if not math.isfinite(total)
                else ""
            ),
            rows=tuple(rows),
        )
    ]


def _of_whole(held: Sequence[tuple[Entry, Tensor]], norms: Sequence[float]) -> list[float]:
    """Return the norms of whole gradients from those of this rank's shards and of all others.

    Of equal copies, and of plain gradients beside sharded ones, one rank's count: the first's.
    """
    heard = exchange(
        [
            (entry.name, norm, mesh_of(grad) is not None, counts_here(grad))
            for (entry, grad), norm in zip(held, norms, strict=True)
        ]
    )
    if len(heard) == 1:
        return list(norms)
    parts: dict[str, list[float]] = {}
    plain: dict[str, float] = {}
    for _, said in sorted(heard.items()):
        for name, norm, sharded, counts in said:
            if not sharded:
                plain.setdefault(name, norm)
            elif counts:
                parts.setdefault(name, []).append(norm)
    return [
        math.hypot(*parts[entry.name]) if entry.name in parts else plain.get(entry.name, norm)
        for (entry, _), norm in zip(held, norms, strict=True)
    ]


def norms_of(grads: Sequence[Tensor]) -> list[float]:
    """Return the 2-norms, in double precision where the device has it: squares neither overflow
    nor underflow. One synchronization per device."""
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
    try:
        values = stored_values(grad)
        if values.is_complex():
            values = torch.view_as_real(values.resolve_conj())
        norm: Tensor = torch.linalg.vector_norm(values.to(real))
    except Exception as error:
        if type(grad) is Tensor:
            raise
        # What a subclass wraps may be codes of its values: their norm would be another number.
        raise ParamCheckUsageError(
            f"the norm of a gradient cannot be computed: {type(grad).__name__} does not compute "
            f"({type(error).__name__}: {first_line(error, 80)})"
        ) from error
    return norm


def _share(norm: float, total: float) -> str:
    if not math.isfinite(total) or total == 0:
        return ""
    return f"  {(norm / total) ** 2:.0%} of the squared norm"
