"""The gradient of a tied parameter against the sum of what each use contributes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..messages.findings import Finding
from ..messages.folding import fold_names
from ..messages.wording import shorten
from ..parameters.running.gradstate import GradState, grad_states
from ..parameters.running.untie import TiedGradient
from ..parameters.tensors.finite import count_text
from .gradients import norms_of
from .reach import NONFINITE_HINT, elsewhere_text, reason_text

#: Relative tolerance of one addition, as torch.testing compares results of each type.
RTOL = {
    torch.float64: 1e-7,
    torch.complex128: 1e-7,
    torch.float32: 1.3e-6,
    torch.complex64: 1.3e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 1.6e-2,
}


_SAY_WHY = "assert_grads_reach(model, loss_fn) says why"
#: How many of the names tied to one a sentence lists.
_NAMES = 4


def is_silent(group: TiedGradient) -> bool:
    """Whether no use gives a nonzero gradient: a sum of nothing is equal to a sum of nothing."""
    states = grad_states([group.total, *group.uses])
    return not group.lost and all(s in (GradState.NONE, GradState.ZERO) for s in states)


def tied_sums(groups: Sequence[TiedGradient]) -> list[Finding]:
    """Find the ties whose gradient is not the sum of its uses, and uses that give nothing."""
    findings = []
    for group in groups:
        for name, missing in group.lost:
            why, hint = reason_text(missing)
            findings.append(
                Finding(
                    (name,),
                    "one use gets no gradient",
                    found=f"tied to {_others(group.names, name)}",
                    why=why,
                    hint=hint,
                )
            )
        if group.elsewhere:
            why, hint = elsewhere_text(group.elsewhere)
            findings.append(Finding(group.names, "no gradient", why=why, hint=hint))
        elif is_silent(group):
            none = all(gradient is None for gradient in (group.total, *group.uses))
            what = "reaches the loss" if none else "has a nonzero gradient"
            findings.append(
                Finding(
                    group.names,
                    "no gradient" if none else "zero gradient",
                    why=f"no use of it {what}, so there is no sum to check",
                    hint=_SAY_WHY,
                )
            )
        elif finding := _not_finite(group) or _differs(group):
            findings.append(finding)
    return findings


def _others(names: Sequence[str], name: str) -> str:
    others = [other for other in names if other != name]
    return shorten(others if len(others) <= _NAMES else fold_names(others), _NAMES)


def _not_finite(group: TiedGradient) -> Finding | None:
    """Find a NaN or an infinity in the gradients: no sum can be compared with it."""
    rows = [*zip(group.names, group.uses, strict=True), ("gradient of the tied one", group.total)]
    states = grad_states([gradient for _, gradient in rows])
    if GradState.NONFINITE not in states:
        return None
    return Finding(
        group.names,
        "gradient not finite",
        hint=NONFINITE_HINT,
        rows=tuple(
            (label, count_text(gradient) if state is GradState.NONFINITE else state.value)
            for (label, gradient), state in zip(rows, states, strict=True)
            if gradient is not None
        ),
    )


def _differs(group: TiedGradient) -> Finding | None:
    with torch.no_grad():
        there = [use for use in group.uses if use is not None]
        total = group.total
        if total is None and not there:
            return None
        like: Tensor = total if total is not None else there[0]
        wide = _wide(like.dtype, like.device)
        sums = torch.zeros(like.shape, dtype=wide, device=like.device)
        scale = torch.zeros((), dtype=torch.float32, device=like.device)
        for use in there:
            dense = _dense(use).to(wide)
            sums += dense
            scale += dense.abs().max().to(torch.float32) if dense.numel() else 0
        arrived = _dense(total).to(wide) if total is not None else torch.zeros_like(sums)
        gap = (arrived - sums).abs()
        worst = float(gap.max()) if gap.numel() else 0.0
        # One rounding for each addition, relative to the sum of the largest contributions.
        allowed = RTOL.get(like.dtype, 1.6e-2) * max(len(there) - 1, 1) * float(scale)
        if worst <= allowed:
            return None
        at = _position(gap)
        norms = norms_of([*there, sums, arrived])
    rows = []
    remaining = iter(norms)
    for name, given in zip(group.names, group.uses, strict=True):
        text = "no gradient under this name" if given is None else f"norm {next(remaining):.4g}"
        rows.append((name, text))
    rows.append(("sum of the uses", f"norm {next(remaining):.4g}"))
    rows.append(("gradient of the tied one", f"norm {next(remaining):.4g}"))
    return Finding(
        group.names,
        "gradient is not the sum of its uses",
        expected=f"a difference of at most {allowed:.2g}",
        found=f"{worst:.4g}{at}",
        why=(
            "a hook on the shared parameter changes its gradient"
            if group.hooked
            else "some code treats a shared parameter differently from two separate ones"
        ),
        hint=(
            ""
            if group.hooked
            else "look for a custom function that writes gradients itself, or code that asks "
            "whether the parameter is shared"
        ),
        rows=tuple(rows),
    )


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _wide(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    if dtype.is_complex:
        return torch.complex128
    return torch.float32 if device.type == "mps" else torch.float64


def _position(gap: Tensor) -> str:
    if gap.dim() == 0:
        return ""
    flat = int(gap.nan_to_num(nan=float("inf")).argmax())
    index = []
    for size in reversed(gap.shape):
        flat, remainder = divmod(flat, size)
        index.append(remainder)
    return f" at {index[::-1]}"
